"""The vocabulary, in the order the data flows. All records are frozen; a later stage is made with `dataclasses.replace`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, as the policy asked for it."""

    name: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `calls` and `malformed` are set for the assistant's alone, by the renderer that parsed it."""

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    malformed: str = ""  # why the text could not be read as tool calls; empty where it could


@dataclass(frozen=True, slots=True)
class Task:
    """One problem instance. Only rewards and checkers read `truth`: one entry per user turn."""

    id: str
    env: str
    level: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Json], ...]
    payload: Mapping[str, Json]
    truth: tuple[Mapping[str, Json], ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """One scheduling decision: which task, how, from which state, and why. `id` counts up from 0 within a run."""

    id: int
    task: Task
    stage: str
    augmentation: float  # share of errors that get their hint, 0 to 1
    reward: str  # the rubric's name
    group_size: int
    start: tuple[Message, ...] = ()  # actions replayed before the policy takes over
    reason: str = ""
    seed: int = 0
    temperature: float = 0.0  # to sample with; 0 is the run's own
    max_turns: int = 0  # of the policy, after `start`; 0 is the run's own limit
    credit: str = ""  # which turns the group into advantages; empty for the run's own
    depths: tuple[int, ...] = ()  # sibling n begins after depths[n % len(depths)] of `start`; empty: all after the whole
    expected: tuple[tuple[Message, ...], ...] = ()  # what each action of `start` was answered, where that is known
    expert: str = ""  # whose actions `start` has: the id of a recorded trajectory, or empty for the reference's or its own


class Stop(StrEnum):
    """Why an episode ended. `FAULT` is the machine's failure, never the policy's."""

    DONE = "done"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    DEADLINE = "deadline"
    FAULT = "fault"


class Author(StrEnum):
    POLICY = "policy"
    EXPERT = "expert"


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What one tool call came to. `error` is the environment's bare error code; empty where the call succeeded."""

    call: ToolCall
    result: Json
    error: str = ""


@dataclass(frozen=True, slots=True)
class Signals:
    """Facts for rewards; the policy never sees them. `state` is a snapshot taken where a user turn ended, else None."""

    outcomes: tuple[CallOutcome, ...] = ()
    malformed: str = ""
    state: Json = None
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """What the environment answers."""

    messages: tuple[Message, ...]
    done: bool = False
    signals: Signals = Signals()


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, stop) of an action were sampled from the weights of `version`."""

    version: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Turn:
    """Context newly read, action sampled, what came of it. Tokens of earlier turns are not repeated here."""

    context: tuple[int, ...]
    action: tuple[int, ...]
    logprobs: tuple[float, ...]  # one per action token, as sampled (temperature and truncation included)
    versions: tuple[Span, ...]
    message: Message
    observation: Observation
    author: Author = Author.POLICY
    temperature: float = 1.0  # the one that the action was sampled with

    @property
    def told(self) -> Turn:
        """The message alone, and whether the episode ended with it."""
        return Turn((), (), (), (), self.message, Observation((), self.observation.done), self.author)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode, recorded. `turn_rewards` has one entry per user turn of the task."""

    id: str
    task_id: str
    turns: tuple[Turn, ...]
    stop: Stop
    reward: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    turn_rewards: tuple[float, ...] = ()
    success: bool = False
    seconds: float = 0.0
    spent: Mapping[str, float] = field(default_factory=dict)  # of those seconds, by "engine", "environment", "reward"
    fault: str = ""
    opening: tuple[Message, ...] = ()  # what the episode began with, where that is more than the task's own messages

    @property
    def version(self) -> int:
        """The oldest weights that any action was sampled from; -1 where nothing was sampled."""
        return min((span.version for turn in self.turns for span in turn.versions), default=-1)

    @property
    def num_tokens(self) -> int:
        return sum(len(turn.context) + len(turn.action) for turn in self.turns)

    @property
    def num_action_tokens(self) -> int:
        """Sampled; an expert's do not count."""
        return sum(len(turn.action) for turn in self.turns if turn.author is Author.POLICY)

    @property
    def hints(self) -> tuple[str, ...]:
        return tuple(hint for turn in self.turns for hint in turn.observation.signals.hints)


@dataclass(frozen=True, slots=True)
class Group:
    """Siblings of one assignment; `cancelled` has the tokens that each one not waited for had sampled by then."""

    assignment: Assignment
    trajectories: tuple[Trajectory, ...]
    cancelled: tuple[int, ...] = ()

    @property
    def outcome(self) -> Group:
        """The same without tokens, and only the first sibling with its messages: all that the curriculum needs."""
        first, *others = self.trajectories
        told = replace(first, turns=tuple(turn.told for turn in first.turns))
        return replace(self, trajectories=(told, *(replace(one, turns=()) for one in others)))

    @property
    def rewards(self) -> tuple[float, ...]:
        return tuple(trajectory.reward for trajectory in self.trajectories)

    @property
    def version(self) -> int:
        """The oldest weights that any action was sampled from; -1 where nothing was sampled."""
        return min((one.version for one in self.trajectories if one.version >= 0), default=-1)

    @property
    def has_signal(self) -> bool:
        """Whether the siblings' rewards differ: where they do not, every group-relative advantage is zero."""
        sound = [trajectory.reward for trajectory in self.trajectories if trajectory.stop is not Stop.FAULT]
        return bool(sound) and max(sound) - min(sound) > 1e-6

    @property
    def success(self) -> float:
        return sum(trajectory.success for trajectory in self.trajectories) / len(self.trajectories)
