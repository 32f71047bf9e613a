"""What acting can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.calls import CALL_FORMATS
from actors.engine_pool import Deadlines
from actors.vllm_engine import VLLMConfig


@dataclass(frozen=True)
class ActorsConfig:
    """`model` is "smollm2", a Hugging Face folder, or a hub name; `deadline_s` bounds one episode, in seconds.

    `calls` is the format in which the policy writes tool calls: "json" (Hermes, Qwen), "llama" (Llama 3.1), "python"
    (ToolACE, watt-tool, BFCL) or "think" (Environment Tuning's: a thought, then calls or an answer).
    `redundancy` is how many siblings a group begins beyond its size: the last to finish are cancelled, which shortens the
    wait for a long tail and favours short episodes; the metrics tell what was cancelled.
    """

    model: str = "smollm2"
    calls: str = "json"
    num_engines: int = 1
    num_env_actors: int = 1
    max_open_groups: int = 16  # over all environment actors
    temperature: float = 1.0
    top_p: float = 1.0
    max_turns: int = 24
    max_action_tokens: int = 48
    deadline_s: float = 300.0
    fault_retries: int = 2
    redundancy: int = 0
    engine: VLLMConfig = field(default_factory=VLLMConfig)
    deadlines: Deadlines = field(default_factory=Deadlines)

    def __post_init__(self) -> None:
        for name in ("num_engines", "num_env_actors", "max_open_groups", "max_turns", "max_action_tokens"):
            value = int(vars(self)[name])
            if value < 1:
                raise ValueError(f"actors.{name} is {value}; it must be at least 1")
        for name in ("fault_retries", "redundancy"):
            if vars(self)[name] < 0:
                raise ValueError(f"actors.{name} is {vars(self)[name]}; it must be 0 or more")
        if self.calls not in CALL_FORMATS:
            raise ValueError(f"actors.calls is {self.calls!r}; there are: {', '.join(CALL_FORMATS)}")
        if self.temperature <= 0:
            raise ValueError(f"actors.temperature is {self.temperature}; training samples, so it must be above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"actors.top_p is {self.top_p}; it must lie in (0, 1]")
        if self.deadlines.generate_s >= self.deadline_s:
            raise ValueError(
                f"actors.deadlines.generate_s is {self.deadlines.generate_s:g}, not below actors.deadline_s {self.deadline_s:g}: "
                "an engine that hangs would never be found; lower the former"
            )
        if self.max_action_tokens >= self.engine.max_model_len:
            raise ValueError(
                f"actors.max_action_tokens is {self.max_action_tokens}, not below actors.engine.max_model_len "
                f"{self.engine.max_model_len}; raise the latter"
            )
