import os
import subprocess
import sys

from cluster.remote import lean_memory

CODE = """
import numpy, psutil
from learner.allocator import Pages
MB = 2**20
resident = lambda: psutil.Process().memory_info().rss
pages, first = Pages(), resident()
print(pages.tidy())
kept = [numpy.ones(MB) for _ in range(100)]  # 8 MB each
del kept
print(resident() > first + 700 * MB, pages.tidy(), resident() < first + 100 * MB, pages.tidy())
"""


def said(variables: dict[str, str]) -> list[str]:
    done = subprocess.run([sys.executable, "-c", CODE], env={**os.environ, **variables}, capture_output=True, text=True)
    return done.stdout.split() or [done.stderr]


def test_pages_stay_until_they_are_many_and_then_go_back() -> None:
    assert said(lean_memory()) == ["False", "True", "True", "True", "False"]


def test_nothing_happens_where_another_allocator_serves() -> None:
    assert said({}) == ["False", "False", "False", "True", "False"]
