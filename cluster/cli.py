"""The command `tiltyard`. What a command needs is imported when it is chosen, so that --help takes no time."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

COMMANDS = {
    "train": "cluster.train_command",
    "evaluate": "cluster.evaluate_command",
    "score": "cluster.score_command",
    "augment": "cluster.augment_command",
    "construct": "cluster.construct_command",
    "curriculum": "cluster.curriculum_command",
    "doctor": "cluster.doctor_command",
    "experts": "cluster.experts_command",
    "inspect": "cluster.inspect_command",
    "submit": "cluster.submit_command",
    "timeline": "cluster.timeline_command",
}
SUBMIT_HELP = """\
Runs `tiltyard train` as a Ray job. A head with token authentication on this machine:

  ray get-auth-token --generate            # once: writes ~/.ray/auth_token
  export RAY_AUTH_MODE=token
  ray start --head --dashboard-host 127.0.0.1
  tiltyard submit deploy/experiments/shop.yaml

The dashboard is then at http://127.0.0.1:8265. `ray stop` ends the head.
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("tiltyard", description="Train LLM tool-use agents, and tune their environment.")
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a model as a config says")
    train.add_argument("config", nargs="?", help="a YAML file, such as deploy/experiments/shop.yaml")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="such as learner.num_steps=20")
    train.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")
    evaluate = commands.add_parser("evaluate", help="play the test tasks with a model, or with a run's last checkpoint")
    evaluate.add_argument("config", help="a YAML file, or a run's folder")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value")
    evaluate.add_argument("--split", default="test", choices=("train", "validation", "test"))
    score = commands.add_parser("score", help="score recorded calls of any agent")
    score.add_argument("env", help="the environment, such as shop")
    score.add_argument(
        "file", help='JSON lines: {"task_id": ..., "turns": [[{"name": ..., "arguments": {...}}]]}, or an environment\'s own form'
    )
    augment = commands.add_parser("augment", help="rank the errors that a run's policy fails on, and have hints written for them")
    augment.add_argument("run", help="the run's folder")
    augment.add_argument("--endpoint", default="", help="base URL of a server that speaks OpenAI's API")
    augment.add_argument("--model", default="", help="the model to ask there")
    augment.add_argument("--most", type=int, default=10, help="errors to write rules for (default: %(default)s)")
    augment.add_argument("--all", action="store_true", help="errors that have a rule already, too")
    _add_construct(commands.add_parser("construct", help="build environments from questions, or take published ones"))
    _add_experts(commands.add_parser("experts", help="record trajectories to begin from or to imitate, good and bad ones"))
    curriculum = commands.add_parser("curriculum", help="a run's stages and why they came; which tasks are solved or stuck")
    curriculum.add_argument("run", help="the run's folder")
    doctor = commands.add_parser("doctor", help="check a config without a GPU: data, template, lengths, reference, memory")
    doctor.add_argument("config")
    doctor.add_argument("overrides", nargs="*", metavar="key=value")
    doctor.add_argument("--gpu-gb", type=float, default=0.0, help="memory of one GPU, to tell whether all fits")
    inspect = commands.add_parser("inspect", help="by how much the parameters of two checkpoints differ, by layer and module")
    inspect.add_argument("before", help="a model's folder, or a run's")
    inspect.add_argument("after")
    inspect.add_argument("--out", default="", metavar="FILE", help="draw a heat map into this picture")
    submit = commands.add_parser(
        "submit",
        help="run `train` as a Ray job",
        epilog=SUBMIT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    submit.add_argument("config")
    submit.add_argument("overrides", nargs="*", metavar="key=value")
    submit.add_argument("--address", default="http://127.0.0.1:8265", help="of the dashboard (default: %(default)s)")
    submit.add_argument("--insecure", action="store_true", help="accept a cluster that answers without a token")
    submit.add_argument("--no-wait", action="store_true", help="return once the job is accepted")
    timeline = commands.add_parser("timeline", help="where a run's time went: a trace for Perfetto or chrome://tracing")
    timeline.add_argument("run", help="the run's folder")
    return top


def _add_construct(construct: argparse.ArgumentParser) -> None:
    construct.add_argument("--questions", default="", metavar="FILE", help='JSON lines: {"question": text, "answer": text}')
    construct.add_argument(
        "--author", default="embedded", metavar="URL", help="of a server that speaks OpenAI's API; default: %(default)s"
    )
    construct.add_argument("--model", default="", help="the model to ask there; its key in OPENAI_API_KEY")
    construct.add_argument("--count", type=int, default=480, help="questions, at most (default: %(default)s)")
    construct.add_argument("--seed", type=int, default=0, help="of the embedded author's worlds (default: %(default)s)")
    construct.add_argument("--shares", type=int, nargs=3, default=[8, 1, 1], metavar="N", help="of train, validation and test")
    construct.add_argument("--out", required=True, metavar="FOLDER")
    construct.add_argument(
        "--import", nargs=2, dest="imported", metavar=("FORMAT", "FILE"), help="ftrl or toolhop: take a file as it is"
    )
    construct.add_argument("--actors", type=int, default=0, help="Ray actors that build (default: none, but threads here)")
    construct.add_argument("--parallel", type=int, default=8, help="questions at once (default: %(default)s)")
    construct.add_argument("--timeout-s", type=float, default=120.0, help="for one reply (default: %(default)s)")
    construct.add_argument("--max-tokens", type=int, default=4096, help="of one reply (default: %(default)s)")
    construct.add_argument(
        "--usd-per-million", type=float, nargs=2, default=[0.0, 0.0], metavar=("IN", "OUT"), help="to tell the cost"
    )
    construct.add_argument("--insecure", action="store_true", help="run the tools' code even where it cannot be shut in")


def _add_experts(experts: argparse.ArgumentParser) -> None:
    experts.add_argument("env", help="the environment, such as shop; its references are played, unless told otherwise")
    experts.add_argument("--out", required=True, metavar="FILE", help="a Parquet file, for curriculum.experts")
    experts.add_argument("--split", default="train", choices=("train", "validation", "test"))
    experts.add_argument("--levels", nargs="+", default=[], metavar="LEVEL", help="default: all")
    experts.add_argument("--most", type=int, default=0, metavar="N", help="tasks of each level (default: all)")
    experts.add_argument("--degraded", type=float, default=0.0, metavar="SHARE", help="of the references, made worse from a seed")
    experts.add_argument("--seed", type=int, default=0)
    experts.add_argument("--endpoint", default="", metavar="URL", help="of a server that speaks OpenAI's API: its model plays")
    experts.add_argument("--model", default="", help="the model to ask there; its key in OPENAI_API_KEY")
    experts.add_argument("--import", default="", dest="imported", metavar="FILE", help="JSON lines of task_id and messages")
    experts.add_argument("--calls", default="", metavar="FORMAT", help="of calls written into imported texts, such as json")
    experts.add_argument("--max-turns", type=int, default=0, help="messages in a trajectory (default: all, of a model 100)")
    experts.add_argument("--parallel", type=int, default=1, help="trajectories at once (default: %(default)s)")
    experts.add_argument("--resume", action="store_true", help="keep what FILE has, and play what it has not")


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 done, 1 failed, 2 could not start."""
    top = parser()
    chosen = top.parse_args(arguments)
    if chosen.command == "train":
        if chosen.resume and chosen.config:
            chosen.overrides = [chosen.config, *chosen.overrides]
        elif not chosen.resume and not chosen.config:
            top.error("train needs a config, such as deploy/experiments/shop.yaml, or --resume RUN")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as cluster.remote does for actors, before torch is imported
    return importlib.import_module(COMMANDS[chosen.command]).main(chosen)


if __name__ == "__main__":
    sys.exit(main())
