"""`tiltyard score`: recorded calls of any agent, played through the environment, one JSON line each."""

from __future__ import annotations

import argparse
import json
import sys

from envs.environment import environment
from rewards.score import score_file


def main(arguments: argparse.Namespace) -> int:
    """Exit status 0 where every line was scored, 2 where one could not be read."""
    try:
        environment(arguments.env).ready()
        for verdict in score_file(arguments.env, arguments.file):
            print(json.dumps(verdict))
    except ValueError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    return 0
