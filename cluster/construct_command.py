"""`tiltyard construct`: environments from questions, or from published files, into a folder that a config can name."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from cluster.config import ClusterConfig, ConfigError
from cluster.construction import JOURNAL, MANIFEST, Construction, Settings, Summary
from cluster.session import session
from envs.author import Author
from envs.construct.decompose import read_question
from envs.construct.embedded.author import EmbeddedAuthor, questions
from envs.construct.pipeline import Builder
from envs.construct.records import Question
from envs.constructed.imports import FORMATS, load
from envs.constructed.tasks import FILE
from envs.endpoint import Endpoint, EndpointError
from envs.json_lines import lines, objects
from envs.sandbox import Sandbox, SandboxError

EMBEDDED = "embedded"


def main(arguments: argparse.Namespace) -> int:
    """Exit status 1 where the author failed midway, 2 where it could not start."""
    if not arguments.actors:
        signal.signal(signal.SIGINT, _leave)
    try:
        if Path(arguments.out).is_file():
            raise ConfigError(f"--out is {arguments.out}, which is a file; name a folder")
        if arguments.imported:
            return _import(*arguments.imported, Path(arguments.out), insecure=arguments.insecure)
        settings = _settings(arguments)
        construction = Construction(Path(arguments.out), settings, _questions(arguments))
        if construction.summary:
            print(f"{arguments.out} is there already: {construction.summary.text}")
            return 0
        _check_sandbox(insecure=arguments.insecure)
        with session(ClusterConfig(spawn="ray" if arguments.actors else "local", dashboard=False)):
            summary = asyncio.run(construction.run(partial(Builder, _author(arguments), **_place(arguments)), arguments.actors))
    except (ConfigError, SandboxError, ValueError) as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    except EndpointError as error:
        print(f"tiltyard: {error}\nNothing is lost: the same command goes on from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _stopped()
    _tell(summary, arguments)
    return 0


def _check_sandbox(*, insecure: bool) -> None:
    """Raises SandboxError here rather than in an actor, and tells which isolation it will be."""
    sandbox = Sandbox(insecure=insecure)
    print(f"tools run behind {' + '.join(sandbox.isolation) or 'nothing (insecure)'}", file=sys.stderr)
    sandbox.close()


def _leave(*_: object) -> None:
    """At once: threads may wait long for a reply, and what the journal has is whole."""
    os._exit(_stopped())


def _stopped() -> int:
    print("\ntiltyard: stopped; the same command goes on from here", file=sys.stderr, flush=True)
    return 130


def _tell(summary: Summary, arguments: argparse.Namespace) -> None:
    print(f"{arguments.out}: {summary.text}")
    usage = summary.usage
    if usage.tokens_in:
        paid = (usage.tokens_in * arguments.usd_per_million[0] + usage.tokens_out * arguments.usd_per_million[1]) / 1e6
        print(f"asked {usage.asked} times, {usage.tokens_in:,} tokens read, {usage.tokens_out:,} written, {paid:.2f} USD")
    for line in shown(Path(arguments.out) / FILE):
        print(line)
    print(f"train on them by: envs.name=constructed:{arguments.out}")


def shown(path: Path) -> Iterator[str]:
    """The last of the environments in words."""
    texts = lines(path)
    entry = json.loads(texts[-1][1]) if texts else {"sub_questions": []}
    if texts:
        names = ", ".join(tool["function"]["name"] for tool in entry["tools"])
        yield f"one of them: {entry['question']}  ->  {entry['answer']}\n  tools: {names}"
    for sub in entry["sub_questions"]:
        told = ", ".join(f"{name}={value!r}" for name, value in sub["call"]["arguments"].items())
        yield f"  {sub['id']}. {sub['text']}  {sub['call']['name']}({told}) -> {json.dumps(sub['result'], ensure_ascii=False)}"


def _questions(arguments: argparse.Namespace) -> Sequence[Question]:
    if not arguments.questions:
        if arguments.author != EMBEDDED:
            raise ConfigError("which questions? name a file of JSON lines by --questions, or take --author embedded with its own")
        return tuple(questions(arguments.seed, arguments.count))
    path, found = Path(arguments.questions), list[Question]()
    for number, entry in objects(path, 'each line is an object such as {"question": "How high is ...?", "answer": "812"}'):
        try:
            found.append(read_question(entry, number - 1))
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
    if arguments.author == EMBEDDED:
        raise ConfigError(
            "the embedded author answers no questions but its own; leave --questions out, or name an endpoint by --author"
        )
    if not found:
        raise ConfigError(f"{path} has no question; each line is one, an object with question and answer")
    if len({question.id for question in found}) < len(found):
        raise ConfigError(f"{path}: two questions have the same id")
    return tuple(islice(found, arguments.count))


def _settings(arguments: argparse.Namespace) -> Settings:
    for name, value in (("parallel", arguments.parallel), ("count", arguments.count)):
        if value < 1:
            raise ConfigError(f"--{name} is {value}; it must be at least 1")
    if arguments.author != EMBEDDED and not arguments.model:
        raise ConfigError(f"--author {arguments.author} needs --model, the name of the model to ask there")
    return Settings(arguments.author, arguments.model, tuple(arguments.shares), arguments.parallel)


def _author(arguments: argparse.Namespace) -> partial[Author]:
    if arguments.author == EMBEDDED:
        return partial(EmbeddedAuthor)
    key = os.environ.get("OPENAI_API_KEY", "")
    return partial(
        Endpoint, arguments.author, arguments.model, key, timeout_s=arguments.timeout_s, max_tokens=arguments.max_tokens
    )


def _place(arguments: argparse.Namespace) -> dict[str, int | bool]:
    return {"workers": max(1, (os.cpu_count() or 1) // max(arguments.actors, 1)), "insecure": arguments.insecure}


def _import(format: str, file: str, out: Path, *, insecure: bool) -> int:
    """Exit status 0 where all were taken or rejected with a reason, 1 where none was taken."""
    if format not in FORMATS:
        raise ConfigError(f"no format is called {format!r}; there are: {', '.join(FORMATS)}")
    if any((out / name).exists() for name in (MANIFEST, JOURNAL)):
        raise ConfigError(f"{out} holds a construction; name another folder by --out, or delete it")
    sandbox = Sandbox(insecure=insecure)
    imported = load(format, Path(file), sandbox)
    sandbox.close()
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in imported.entries), encoding="utf-8")
    print(f"loaded {imported.num_loaded}, deployed {len(imported.entries)}, rejected {len(imported.rejected)}")
    for number, reason in imported.rejected:
        print(f"  line {number}: {reason}")
    if not imported.entries:
        return 1
    print(f"evaluate on them by: envs.name=constructed:{out}")
    return 0
