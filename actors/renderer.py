"""Messages become tokens and tokens become messages here, append-only: what was read or sampled is never tokenised again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from actors.calls import CALL_FORMATS
from envs.types import Json, Message

PROBE = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"))


class RendererError(ValueError):
    """The chat template cannot be used: the message says why and what to do."""


class Renderer:
    """Tokens of a model folder's own tokenizer and chat template; `calls` names the format of tool calls.

    A message with calls and no content, which nobody sampled, is written in that format.

    Raises RendererError where the template is missing or not append-only: then a turn's tokens could not be kept.
    """

    def __init__(self, folder: str, calls: str = "json") -> None:
        path = Path(folder)
        self._calls = CALL_FORMATS[calls]
        self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        jinja.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
        jinja.globals["raise_exception"] = self._raise
        settings = json.loads((path / "tokenizer_config.json").read_text())
        self._constants = {key: _token_text(settings.get(key)) for key in ("bos_token", "eos_token")}
        self._template = jinja.from_string(_template_text(path, settings))
        self._template.globals = dict(self._template.globals)  # a chain of maps is gone through at every call
        self._opened: tuple[tuple[Message, ...], Sequence[Mapping[str, Json]] | None, tuple[int, ...]] = ((), None, ())
        self._before = self.text(PROBE)
        self._tail = self._find_tail()
        self._eos = self._find_eos()
        self._eos_text = self.decode([self._eos])
        self._ends = {self._eos, *end_tokens(path)}
        self.check()

    @staticmethod
    def _raise(reason: str) -> None:
        raise TemplateError(reason)

    @property
    def eos(self) -> int:
        """The token that ends an assistant's turn."""
        return self._eos

    def text(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Json]] = (), *, prompt: bool = False) -> str:
        """The conversation as the chat template writes it; with `prompt`, up to where the assistant speaks next."""
        chat = [{"role": message.role, "content": self._content(message)} for message in messages]
        return self._template.render(
            messages=chat,
            tools=list(tools) or None,
            add_generation_prompt=prompt,
            call_form=self._calls.form,
            **self._constants,
        )

    def encode(self, text: str) -> tuple[int, ...]:
        # Half of a surrogate pair, which a policy can write as JSON and a tool can echo, is no text to a tokenizer.
        return tuple(self._tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)

    def open(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Json]]) -> tuple[int, ...]:
        """Tokens of the opening conversation, up to where the assistant speaks; a group's siblings all ask for the same."""
        asked, (last, last_tools, tokens) = tuple(messages), self._opened
        if tools is not last_tools or asked != last:
            tokens = self.encode(self.text(messages, tools, prompt=True))
            self._opened = (asked, tools, tokens)
        return tokens

    def act(self, message: Message) -> tuple[int, ...]:
        """Tokens of an assistant's message that was not sampled here (an expert's, a replayed one), its end included."""
        return self.encode(self._content(message)) + (self._eos,)

    def extend(self, action: Sequence[int], messages: Sequence[Message]) -> tuple[int, ...]:
        """Tokens between the end of `action` and the next one: what closes it, then the new messages."""
        closing = self._tail if not action or action[-1] != self._eos else self._tail[len(self._eos_text) :]
        after = self.text((*PROBE, *messages), prompt=True)
        return self.encode(closing + after[len(self._before) :])

    def parse(self, action: Sequence[int], *, is_cut: bool = False) -> Message:
        """The message that sampled tokens are, without their end token: the template's or another of the model's."""
        body = action[:-1] if action and action[-1] in self._ends else action
        return self._calls.parse(self.decode(body), is_cut=is_cut)

    def _content(self, message: Message) -> str:
        if message.role != "assistant" or message.malformed:
            return message.content
        if not message.calls:
            return self._calls.say(message.content)
        # Words around calls stay where they read as those calls: an expert's may be in another format.
        is_own = message.content and self._calls.parse(message.content).calls == message.calls
        return message.content if is_own else self._calls.write(message.calls)

    def _find_tail(self) -> str:
        rendered = self._before
        opened = self.text(PROBE[:2], prompt=True) + self._content(PROBE[2])
        if not rendered.startswith(opened):
            raise RendererError(f"the chat template writes an assistant's turn unlike its own prompt: {rendered!r}")
        return rendered[len(opened) :]

    def _find_eos(self) -> int:
        tokens = self.encode(self._tail)
        if not tokens:
            raise RendererError("the chat template does not end an assistant's turn; use one that closes it with a token")
        return tokens[0]

    def check(self) -> None:
        """Prove on a probe that a rendered prefix never changes. Raises RendererError with the remedy."""
        history: list[Message] = list(PROBE[:2])
        tokens = self.open(history, ())
        for number in range(3):
            action = self.act(Message("assistant", f"<think>t{number}</think>a{number}"))
            news = (Message("tool", f"r{number}"), Message("user", f"q{number}"))
            history += [Message("assistant", f"<think>t{number}</think>a{number}"), *news]
            tokens += action + self.extend(action, news)
            if tokens != self.open(history, ()):
                raise RendererError(
                    f"the chat template is not append-only: at turn {number} the rendered history differs from the "
                    "tokens kept (a template that strips earlier thoughts, say). Put an append-only chat_template.jinja "
                    "into the model's folder."
                )


def _token_text(value: Json) -> str:
    if isinstance(value, dict):
        return str(value.get("content", ""))
    return str(value or "")


def _template_text(path: Path, settings: Mapping[str, Json]) -> str:
    beside = path / "chat_template.jinja"
    if beside.exists():
        return beside.read_text()
    inside = settings.get("chat_template")
    if not isinstance(inside, str):
        raise RendererError(f"{path} has no chat template; put a chat_template.jinja there")
    return inside


def end_tokens(model: Path) -> tuple[int, ...]:
    """The ids that end a turn by the model folder's generation_config.json, else its config.json."""
    for name in ("generation_config.json", "config.json"):
        file = model / name
        found = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
        if found is not None:
            return tuple(found) if isinstance(found, list) else (int(found),)
    return ()
