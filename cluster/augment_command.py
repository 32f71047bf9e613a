"""`tiltyard augment`: the errors on which a run's policy fails again and again, and rules for them, for review."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from cluster.config import Config, ConfigError, load_run
from cluster.placement import tasks
from cluster.store import read
from envs.augmentation import Rules
from envs.config import rules
from envs.endpoint import Endpoint, EndpointError
from envs.hint_author import Draft, Failure, draft, failures
from envs.types import Message, ToolCall

FILE = "hints-draft.yaml"
REMEDY = """\
No endpoint is named, so nothing was written. Name any server that speaks OpenAI's API, such as one of
`vllm serve MODEL`:  tiltyard augment RUN --endpoint http://127.0.0.1:8000/v1 --model MODEL   (its key in OPENAI_API_KEY)"""


@dataclass(frozen=True, slots=True)
class Rank:
    """An error and how often failed episodes met it; `rule` is the id of the one that has been there, if any."""

    first: Failure
    episodes: int
    tasks: int
    rule: str


def main(arguments: argparse.Namespace) -> int:
    """Exit status 1 where the endpoint failed, 2 where the folder holds no run or nobody can be asked."""
    folder = Path(arguments.run)
    try:
        config = load_run(folder)
        if arguments.endpoint and not arguments.model:
            raise ConfigError("--endpoint needs --model, the name of the model to ask there")
        if arguments.most < 1:
            raise ConfigError(f"--most is {arguments.most}; it must be at least 1")
    except ConfigError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    known = rules(config.envs)
    ranked = rank(list(failed(config, folder)), known)
    tell(ranked)
    chosen = [one for one in ranked if arguments.all or not one.rule][: arguments.most]
    if not arguments.endpoint:
        print(REMEDY)
        return 0
    if not chosen:
        print("every error has a rule already; --all has others written" if ranked else "there is nothing to write a rule for")
        return 0
    endpoint = Endpoint(arguments.endpoint, arguments.model, os.environ.get("OPENAI_API_KEY", ""))
    drafts: list[Draft] = []
    try:
        for one in chosen:
            drafts.append(draft(one.first, known, writer=endpoint, judge=endpoint))
            print(f"{one.first.tool}: {one.first.error!r}: {drafts[-1].reason}", flush=True)
    except EndpointError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 1
    finally:
        write(folder / FILE, known, drafts)
    return 0


def failed(config: Config, folder: Path) -> Iterator[list[Failure]]:
    """The errors of each recorded training episode that did not succeed."""
    known = {task.id: task for pool in tasks(config, "train").values() for task in pool}
    for row in read(folder, columns=("task_id", "messages", "success"), split="train").to_pylist():
        if not row["success"] and row["task_id"] in known:
            messages = [_message(told) for told in json.loads(row["messages"]) if told["role"] == "assistant"]
            task = known[row["task_id"]]
            yield failures(task, messages[sum(message.role == "assistant" for message in task.messages) :])


def _message(told: Mapping[str, object]) -> Message:
    calls = tuple(ToolCall(call["name"], call["arguments"]) for call in told["calls"])
    return Message("assistant", str(told["content"]), calls, str(told["malformed"]))


def rank(episodes: Sequence[Sequence[Failure]], known: Rules) -> list[Rank]:
    """The errors, those met in most episodes first."""
    first: dict[tuple[str, str], Failure] = {}
    count: Counter[tuple[str, str]] = Counter()
    met: dict[tuple[str, str], set[str]] = {}
    for episode in episodes:
        for failure in episode:
            first.setdefault(failure.key, failure)
            met.setdefault(failure.key, set()).add(failure.task.id)
        count.update({failure.key for failure in episode})
    found: list[Rank] = []
    for key, episodes_met in count.most_common():
        rule = known.find(first[key].tool, first[key].told)
        found.append(Rank(first[key], episodes_met, len(met[key]), known.id(rule) if rule else ""))
    return found


def tell(ranked: Sequence[Rank]) -> None:
    print(f"{'episodes':>8} {'tasks':>6}  error" if ranked else "no failed episode met an error of a tool")
    for one in ranked:
        there = f"   (has {one.rule})" if one.rule else "   (no rule)"
        print(f"{one.episodes:8} {one.tasks:6}  {one.first.tool}: {one.first.error}{there}")


def write(path: Path, known: Rules, drafts: Sequence[Draft]) -> None:
    """A rules file of its own with what was approved; nothing where nothing was."""
    approved = [asdict(one.rule) for one in drafts if one.rule]
    if not approved:
        print(f"no rule was approved; {path} is not written")
        return
    file = {"name": known.name, "version": known.version + 1, "rules": approved}
    path.write_text(yaml.safe_dump(file, sort_keys=False, allow_unicode=True, width=1000))
    print(f"{path}: {len(approved)} rules to review; then add them to the environment's rules, or name the file by envs.rules")
