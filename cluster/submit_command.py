"""`tiltyard submit`: `ray job submit` of a training run, refused where the cluster answers without a token."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from cluster.config import ConfigError, load

TIMEOUT_S = 10


def main(arguments: argparse.Namespace) -> int:
    """The job's exit status; 2 where nothing was submitted."""
    try:
        config = load(Path(arguments.config), arguments.overrides)
        check_cluster(arguments.address, is_insecure=arguments.insecure)
    except ConfigError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    # A job runs in a copy of this folder: what must outlive it, or is large, stays where it is.
    kept = [
        f"cluster.runs={Path(config.cluster.runs).absolute()}",
        f"cluster.models={Path(config.cluster.models).absolute()}",
    ]
    entry = [sys.executable, "-m", "cluster.cli", "train", arguments.config, *arguments.overrides, *kept]
    wait = ["--no-wait"] if arguments.no_wait else []
    ray = Path(sys.executable).with_name("ray")
    excludes = json.dumps({"excludes": [".venv", "runs", "models", ".git"]})
    command = [str(ray), "job", "submit", "--address", arguments.address, "--working-dir", ".", *wait]
    return subprocess.run([*command, "--runtime-env-json", excludes, "--", *entry]).returncode


def check_cluster(address: str, *, is_insecure: bool) -> None:
    """Raise ConfigError where no cluster answers, or where it answers to a stranger."""
    if "://" not in address:
        raise ConfigError(f"--address is {address!r}; write it with http://, such as http://127.0.0.1:8265")
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=TIMEOUT_S):
            is_open = True
    except urllib.error.HTTPError as error:
        is_open = error.code not in (401, 403)
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error}); start one (`tiltyard submit --help` says how) or give --address"
        ) from None
    if is_open and not is_insecure:
        raise ConfigError(
            f"the cluster at {address} answers without a token: anyone who reaches it runs code on it. Start it with "
            "RAY_AUTH_MODE=token (`tiltyard submit --help`), or insist with --insecure"
        )
    if not is_open and os.environ.get("RAY_AUTH_MODE") != "token":
        raise ConfigError(f"the cluster at {address} wants a token; export RAY_AUTH_MODE=token here too, with the same token")
