"""WebShop: a shop's pages to search and click through, and the published reward for what was bought at the end."""

from functools import partial

from envs.environment import Entry
from envs.webshop.goals import LEVELS
from envs.webshop.products import catalogue
from envs.webshop.purchases import scored
from envs.webshop.tasks import oracle, taskset
from envs.webshop.webshop import WebShop


def about(folder: str) -> str:
    """Which products there are. Raises ValueError where they cannot be read."""
    return catalogue(folder).about


def _entry(folder: str, levels: tuple[str, ...], *, is_quick: bool) -> Entry:
    return Entry(
        WebShop,
        partial(taskset, folder, levels),
        levels,
        "",
        oracle,
        ready=partial(about, folder),
        about=partial(about, folder),
        score=partial(scored, folder),
        is_quick=is_quick,
    )


def entry(folder: str) -> Entry:
    """The shop with the products in that folder, however many."""
    return _entry(folder, LEVELS, is_quick=False)


ENTRY = _entry("", LEVELS[:1], is_quick=True)  # products of our own making, of which no person asked for any
__all__ = ["ENTRY", "WebShop", "entry", "oracle", "taskset"]
