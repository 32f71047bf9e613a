"""`python -m deploy.webshop FOLDER`: the shop with the products in that folder, measured.

Recorded purchases (rewards_200.jsonl, where the folder has it) against our reward, with spaCy's nouns and without; the goals that
the reference solves; how often a search finds what is wanted among its 50; milliseconds. Exit status 1 where a reward differs, 2
where the data cannot be read.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from envs.environment import environment
from envs.json_lines import objects
from envs.types import Json
from envs.webshop.goals import goals
from envs.webshop.products import Product, catalogue
from envs.webshop.purchases import is_equal, rescored
from envs.webshop.reward import Nouns, all_words, model, title_nouns
from envs.webshop.tasks import engine

RECORDED = "rewards_200.jsonl"


def parity(folder: str) -> int:
    """How many recorded purchases are scored differently."""
    file = Path(folder) / RECORDED
    if not file.is_file():
        print(f"{file}: not there, no recorded purchases to compare with")
        return 0
    rows = [row for _, row in objects(file, "get the file again")]
    if not all("reward" in row for row in rows) or not rows:
        raise ValueError(f"{file}: it has no purchase, or one without 'reward': there is nothing to compare with")
    nouns = title_nouns()
    differing = sum(not is_equal(rescored(line, catalogue(folder), nouns=nouns), line) for line in rows)
    print(
        f"recorded purchases: reward and all parts equal in {len(rows) - differing} of {len(rows)}, by {model() or 'all words'}"
    )
    print(f"  with every word for a noun: {_same(rows, folder, all_words)} rewards of {len(rows)} equal")
    return differing


def _same(rows: Sequence[dict[str, Json]], folder: str, nouns: Nouns) -> int:
    """How many rewards, whatever their parts, are those recorded."""
    return sum(abs(rescored(line, catalogue(folder), nouns=nouns).reward - float(str(line["reward"]))) < 1e-9 for line in rows)


def solved(name: str) -> None:
    """Plays the reference of every goal."""
    entry = environment(name)
    tasks = [task for level in entry.levels for split in ("test", "validation", "train") for task in entry.taskset(split, level)]
    env, states, times = entry.make(), list[Json](), list[float]()
    for task in tasks:
        env.reset(task)
        for message in entry.oracle(task):
            begun = time.perf_counter()
            observation = env.step(message)
            times.append(time.perf_counter() - begun)
        states.append(observation.signals.state)
    count = states.count({"score": 1.0})
    print(f"goals: the reference buys with the full score in {count} of {len(tasks)} ({count / len(tasks):.1%})")
    mean, median = 1e3 * statistics.mean(times), 1e3 * statistics.median(times)
    print(f"steps: mean {mean:.2f} ms, median {median:.2f} ms, {_p99(times):.2f} p99")


def found(folder: str) -> None:
    """Whether a search finds the product among its 50, by three kinds of keywords."""
    products = [product for product in catalogue(folder).products.values() if product.synthetic]
    texts = {goal.text: goal.asin for goal in goals(folder, "synthetic").values()}
    queries: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
        "its title": lambda: ((product.title, product.asin) for product in products),
        "its instruction": lambda: ((_told(product), product.asin) for product in products),
        "a goal's whole text": lambda: iter(texts.items()),
    }
    for name, pairs in queries.items():
        hits, times = list[bool](), list[float]()
        for keywords, asin in pairs():
            begun = time.perf_counter()
            hits.append(asin in engine(folder)(keywords))
            times.append(time.perf_counter() - begun)
        print(f"search for {name}: found in {sum(hits)} of {len(hits)} ({statistics.mean(hits):.1%}), "
              f"mean {1e3 * statistics.mean(times):.2f} ms, {_p99(times):.2f} p99")  # fmt: skip


def _told(product: Product) -> str:
    return product.synthetic.text if product.synthetic else ""


def _p99(times: Sequence[float]) -> float:
    """In milliseconds."""
    return 1e3 * sorted(times)[len(times) * 99 // 100]


def main(arguments: Sequence[str]) -> int:
    folder = arguments[0] if arguments else ""
    print(catalogue(folder).about)
    differing = parity(folder) if folder else 0
    found(folder)
    solved(f"webshop:{folder}" if folder else "webshop")
    return int(differing > 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
