"""A trained policy is a folder that anyone can use: with its weights, and with the call format that it learnt."""

from pathlib import Path

import torch

from actors.calls import CALL_FORMATS
from actors.renderer import Renderer
from cluster.export import export
from envs.environment import environment
from learner.model import CHAT_TEMPLATE
from learner.publish import publish


def test_the_trained_call_form_is_told_by_the_exported_template(byte_folder: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in Path(byte_folder).iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "chat_template.jinja").write_bytes(CHAT_TEMPLATE.read_bytes())
    weights = publish([("w", torch.ones(2))], 1, str(tmp_path / "weights"))
    form = CALL_FORMATS["python"].form
    out = export(weights, model, tmp_path / "out", call_form=form)
    task = environment("shop").taskset("train", "1")[0]
    # Whoever renders with it, and whatever format they ask for, the policy is told what it was trained on.
    assert f"Call: {form}" in Renderer(str(out), "json").text(task.messages, task.tools)
    assert f"Call: {CALL_FORMATS['json'].form}" in Renderer(str(model), "json").text(task.messages, task.tools)
    assert (out / "model.safetensors").is_file()
