"""Actionable hints in place of bare errors, by rules that are data (Environment Tuning, 2510.10197, 3.3)."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import yaml

from envs.environment import Environment
from envs.types import CallOutcome, Json, Message, Observation, Signals, Task, ToolCall

CATEGORIES = (
    "dependency_missing", "parameter_constraint", "state_prerequisite", "format_mismatch", "resource_unavailable",
)  # fmt: skip
MALFORMED = "malformed"  # the error code of a message that could not be read


@dataclass(frozen=True)
class Rule:
    """The hint for one error of one tool ("*": of any). Names in braces stand for any text in `error`.

    `hint` may name those, and the call's arguments.
    """

    tool: str
    error: str
    category: str
    hint: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What the errors of this rule look like."""
        found: list[str] = []
        for literal, name, _, _ in string.Formatter().parse(self.error):
            found.append(re.escape(literal))
            if name is not None:
                found.append(f"(?P={name})" if f"(?P<{name}>.*?)" in found else f"(?P<{name}>.*?)")
        return re.compile("".join(found), re.DOTALL)

    @property
    def is_open(self) -> bool:
        """Whether it takes any error."""
        return self.error.startswith("{") and self.error.find("}") == len(self.error) - 1

    def text(self, call: ToolCall, error: str) -> str:
        """The hint with its names filled in; "?" for what neither the error nor the call has."""
        match = self.pattern.fullmatch(error)
        values = {**call.arguments, **(match.groupdict() if match else {})}
        return self.hint.format_map({name: _shown(values.get(name)) for name in _names(self.hint)})


@dataclass(frozen=True, slots=True)
class Rules:
    """A validated rules file."""

    name: str
    version: int
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)  # by tool

    def find(self, tool: str, error: str) -> Rule | None:
        """The rule for that tool's error: its own, else one for any tool, else its own for any error at all."""
        candidates = sorted((*self.rules.get(tool, ()), *self.rules.get("*", ())), key=lambda rule: rule.is_open)
        return next((rule for rule in candidates if rule.pattern.fullmatch(error)), None)

    def id(self, rule: Rule) -> str:
        tool = "" if rule.tool == "*" else f"{rule.tool}-"
        return f"{self.name}/{tool}{re.sub(r'[^a-zA-Z0-9]+', '-', rule.error).strip('-')}@{self.version}"


def load_rules(path: str) -> Rules:
    """Read a rules file. ValueError names the file and the entry that is wrong."""
    try:
        data = cast(Json, yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({error}); give the path of a rules file") from error
    match data:
        case {"name": str(name), "version": int(version), "rules": [*entries]}:
            rules: dict[str, tuple[Rule, ...]] = {}
            for number, entry in enumerate(entries, start=1):
                rule = rule_of(entry, f"{path}: rule {number}")
                if any(rule.error == other.error for other in rules.get(rule.tool, ())):
                    raise ValueError(f"{path}: rule {number}: a second for {rule.tool!r}, {rule.error!r}; keep one")
                rules[rule.tool] = (*rules.get(rule.tool, ()), rule)
            return Rules(name, version, rules)
        case _:
            raise ValueError(f"{path}: needs the keys name (text), version (a whole number) and rules (a list)")


def rule_of(entry: Json, where: str) -> Rule:
    """The rule that an entry of a rules file is. ValueError says what is wrong, and `where`."""
    match entry:
        case {"tool": str(tool), "error": str(error), "category": str(category), "hint": str(hint), **rest} if not rest:
            pass
        case _:
            raise ValueError(f"{where}: {entry!r} needs exactly the texts tool, error, category and hint")
    if category not in CATEGORIES:
        raise ValueError(f"{where}: unknown category {category!r}; use one of {', '.join(CATEGORIES)}")
    for key, text in (("error", error), ("hint", hint)):
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as bad:
            raise ValueError(f"{where}: bad {key} {text!r}: {bad}; double a brace that is meant as one") from bad
        if any(name is not None and (not name.isidentifier() or spec or conversion) for _, name, spec, conversion in parts):
            raise ValueError(f"{where}: bad {key} {text!r}: only plain {{argument}} names may stand in braces")
    return Rule(tool, error, category, hint)


def _names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def _shown(value: Json) -> str:
    """Made safe to quote: short, and of a type whose text is short (a huge int raises when written)."""
    return value[:60] if isinstance(value, str) else str(value) if isinstance(value, int) and abs(value) < 10**12 else "?"


class Augmented:
    """Any environment, its bare errors replaced by hints with probability `strength`, deterministic from `seed`.

    Relies on the environment to answer one tool message per outcome, in order, and at most one for a malformed message
    (none where that ended the user turn). Only the text the policy reads and `signals.hints` differ from the bare
    environment; results, errors and state do not.
    """

    def __init__(self, env: Environment, rules: Rules, *, strength: float, seed: int = 0) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"augmentation strength {strength} is not a probability; use 0 to 1")
        self._env, self._rules, self._strength, self._seed = env, rules, strength, seed
        self._rng = random.Random(seed)

    def reset(self, task: Task) -> Observation:
        self._rng = random.Random(self._seed)
        return self._env.reset(task)

    def step(self, message: Message) -> Observation:
        return self._augment(self._env.step(message))

    def close(self) -> None:
        self._env.close()

    def _augment(self, observation: Observation) -> Observation:
        signals = observation.signals
        messages = list(observation.messages)
        places = [index for index, message in enumerate(messages) if message.role == "tool"]
        fired: list[str] = []
        for place, outcome in zip(places, _outcomes(signals), strict=not signals.malformed):
            rule = self._rules.find(outcome.call.name, outcome.error) if outcome.error else None
            if outcome.error and self._rng.random() < self._strength and rule:
                content = _rewritten(messages[place].content, rule.text(outcome.call, outcome.error))
                messages[place] = replace(messages[place], content=content)
                fired.append(self._rules.id(rule))
        return replace(observation, messages=tuple(messages), signals=replace(signals, hints=(*signals.hints, *fired)))


def _outcomes(signals: Signals) -> tuple[CallOutcome, ...]:
    """What each tool message stands for."""
    return (CallOutcome(ToolCall("", {}), None, MALFORMED),) if signals.malformed else signals.outcomes


def _rewritten(content: str, hint: str) -> str:
    """The message with its error replaced; a message that is not a JSON object is replaced as a whole."""
    try:
        body = cast(Json, json.loads(content))
    except ValueError:
        return hint
    return json.dumps({**body, "error": hint}, separators=(",", ":")) if isinstance(body, dict) else hint
