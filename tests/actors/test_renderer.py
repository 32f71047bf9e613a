"""Tokens are kept as read and sampled, in whatever format calls are written."""

import shutil
from pathlib import Path

import pytest

from actors.calls import CALL_FORMATS
from actors.renderer import Renderer, RendererError
from envs.environment import ENVIRONMENTS
from envs.types import Message


@pytest.mark.parametrize("calls", CALL_FORMATS)
def test_rendered_prefix_never_changes_on_a_real_task(byte_folder: str, calls: str) -> None:
    renderer = Renderer(byte_folder, calls)
    entry = ENVIRONMENTS["shop"]
    for task in (entry.taskset("test", level)[3] for level in entry.levels):
        env = entry.make()
        history = list(env.reset(task).messages)
        tokens = renderer.open(history, task.tools)
        for message in entry.oracle(task):
            action = renderer.act(message)
            observation = env.step(message)
            tokens += action + renderer.extend(action, observation.messages)
            history += [message, *observation.messages]
            assert renderer.parse(action).calls == message.calls
        assert tokens == renderer.open(history, task.tools)


def test_an_action_cut_off_is_closed_by_the_context(byte_folder: str) -> None:
    renderer = Renderer(byte_folder)
    news = (Message("tool", "{}"),)
    action = renderer.encode("abc")
    ended = (*action, renderer.eos)
    assert ended + renderer.extend(ended, news) == action + renderer.extend(action, news)


def test_a_template_that_strips_the_past_is_refused(byte_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(byte_folder, folder)
    template = (folder / "chat_template.jinja").read_text()
    stripped = template.replace(
        "+ message.content", "+ (message.content if loop.last else message.content.split('</think>')[-1])"
    )
    assert stripped != template
    (folder / "chat_template.jinja").write_text(stripped)
    with pytest.raises(RendererError, match="not append-only"):
        Renderer(str(folder))
