"""BFCL V4's web-search tasks: 100 questions whose answers stand in the web, with and without snippets of what was found.

For evaluation, with a key of serpapi.com. The package's two tools are written anew over the standard library: its own need
packages that its rules do without, wait for ever where the key's searches are used up, and give pages of any length.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from functools import cache
from html.parser import HTMLParser
from http.client import HTTPException, HTTPMessage
from ipaddress import ip_address
from typing import IO, cast
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from bfcl_eval.eval_checker.agentic_eval.agentic_checker import agentic_checker

from envs.bfcl.bfcl import RAISED, error_of
from envs.bfcl.data import DATA, rows
from envs.bfcl.tasks import MAX_MESSAGES
from envs.conversation import Conversation, World
from envs.environment import Entry
from envs.types import CallOutcome, Json, Message, Task, ToolCall
from envs.user import words

LEVELS = ("base", "no_snippet")
FILE = "BFCL_v4_web_search.json"
KEY = "SERPAPI_API_KEY"
SEARCH = "https://serpapi.com/search.json"
WAITS_S = (2.0, 8.0, 30.0)  # before another try of a search that failed
TIMEOUT_S = 20.0
MAX_BYTES, MAX_CHARS = 2**21, 20_000  # read of a page, and told of it
AGENT = "Mozilla/5.0 (compatible; Tiltyard)"
SYSTEM = """You answer a question by searching the web: search, open the pages that look right, and go on from what you find
there, one fact after the other. Then say the answer in a few words, without any call."""


class SearchFault(RuntimeError):
    """The search service cannot be used: the message says what to look at."""


class BfclWeb(Conversation):
    def __init__(self) -> None:
        super().__init__(Web, max_messages=MAX_MESSAGES)


class Web(World):
    """The two tools. What the policy asks wrongly is told it; a search service that fails is the machine's fault."""

    def __init__(self, task: Task) -> None:
        self._key, self._has_snippets = key(), task.level == "base"
        self._expected = cast(list[str], task.payload["answers"])
        self._tools = {"search_engine_query": self._search, "fetch_url_content": fetch}

    def run(self, call: ToolCall) -> CallOutcome:
        if call.name not in self._tools:
            return CallOutcome(call, f"{RAISED}no tool is called {call.name}", f"no tool is called {call.name}")
        try:
            result = json.dumps(self._tools[call.name](**call.arguments), ensure_ascii=False)
        except SearchFault:
            raise
        except Exception as error:  # a tool's failure is an answer
            result = f"{RAISED}{error}"
        return CallOutcome(call, result, error_of(result))

    def state(self, answer: str) -> Json:
        return bool(agentic_checker(words(answer), self._expected)["valid"])

    def cut(self) -> Json:
        return self.state("")

    def _search(self, keywords: str, max_results: int = 10, region: str = "wt-wt") -> Json:
        found = search({"engine": "duckduckgo", "q": keywords, "kl": region, "api_key": self._key})
        if "organic_results" not in found:
            return {"error": str(found.get("error", "nothing was found"))}
        told = {"title": "title", "href": "link", **({"body": "snippet"} if self._has_snippets else {})}
        results = cast(list[dict[str, Json]], found["organic_results"])[:max_results]
        return [{name: one.get(field, "") for name, field in told.items()} for one in results]


def key() -> str:
    """Raises ValueError where none is set."""
    if not (found := os.environ.get(KEY, "").strip()):
        raise ValueError(f"bfcl_web searches the web by serpapi.com: set {KEY} to a key of it, wherever environments run")
    return found


def search(asked: Mapping[str, str]) -> dict[str, Json]:
    """What the service answers, its objections to the question included. Raises SearchFault where it does not."""
    url, why = f"{SEARCH}?{urlencode(asked, errors='replace')}", ""
    for wait_s in (*WAITS_S, 0.0):
        try:
            return json.loads(_get(url))
        except HTTPError as error:
            if error.code == 400:
                return {"error": error.read().decode(errors="replace")[:MAX_CHARS]}
            why = str(error)
            if error.code in (401, 403):
                break
        except (OSError, HTTPException, ValueError) as error:
            why = str(error)
        time.sleep(wait_s)
    raise SearchFault(f"{SEARCH}: {why}; is {KEY} right, has it searches left, and is the web reached from here?")


def fetch(url: str, mode: str = "raw") -> Json:
    """A page of the web as it is, as text with its links and headings marked, or as text alone."""
    if mode not in ("raw", "markdown", "truncate"):
        return {"error": f"no mode is called {mode}; there are raw, markdown and truncate"}
    try:
        text = _get(url, is_guarded=True)
    except (OSError, HTTPException, ValueError, LookupError) as error:
        return {"error": f"{url} could not be fetched: {error}"}
    return {"content": (text if mode == "raw" else page_text(text, is_marked=mode == "markdown"))[:MAX_CHARS]}


def page_text(html: str, *, is_marked: bool) -> str:
    page = _Page(is_marked)
    page.feed(html)
    page.close()
    lines = (" ".join(line.split()) for line in "".join(page.pieces).split("\n"))
    return "\n".join(line for line in lines if line)


def is_public(url: str) -> bool:
    """Whether it names a host of the web: what the policy asks for must not reach into the cluster's own network."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    return all(ip_address(found[4][0]).is_global for found in socket.getaddrinfo(parts.hostname, None))


class _Guard(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        _check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Page(HTMLParser):
    """Collects a page's text. Marked, links and headings are written as Markdown writes them."""

    def __init__(self, is_marked: bool) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._is_marked, self._hidden, self._links = is_marked, 0, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        if tag == "a":
            self._links.append(dict(attrs).get("href") or "")
            self._mark("[")
        else:
            self.pieces.append("" if tag in ("b", "i", "em", "strong", "span") else "\n")
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self._mark("#" * int(tag[1]) + " ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0
        if tag == "a" and self._links:
            self._mark(f"]({self._links.pop()})")

    def handle_data(self, data: str) -> None:
        self.pieces.append("" if self._hidden else data)

    def _mark(self, text: str) -> None:
        self.pieces.append(text if self._is_marked else "")


def _get(url: str, *, is_guarded: bool = False) -> str:
    if is_guarded:
        _check(url)
    opener = build_opener(_Guard) if is_guarded else build_opener()
    with opener.open(Request(url, headers={"User-Agent": AGENT}), timeout=TIMEOUT_S) as reply:
        return reply.read(MAX_BYTES).decode(reply.headers.get_content_charset() or "utf-8", errors="replace")


def _check(url: str) -> None:
    if not is_public(url):
        raise ValueError("not an address in the web")


@cache
def taskset(split: str, level: str) -> Sequence[Task]:
    """The questions, which are all for testing: the same at both levels."""
    if level not in LEVELS:
        raise ValueError(f"bfcl_web has no level {level!r}; there are: {', '.join(LEVELS)}")
    if split != "test":
        return ()
    answers = {str(row["id"]): cast(list[Json], row["ground_truth"]) for _, row in rows(DATA / "possible_answer" / FILE)}
    tools = tuple(_tool(row) for _, row in rows(DATA / "multi_turn_func_doc" / "web_search.json"))
    return tuple(_task(row, level, answers=answers[str(row["id"])], tools=tools) for _, row in rows(DATA / FILE))


def oracle(task: Task) -> Sequence[Message]:
    return [Message("assistant", f"It is {cast(list[str], task.payload['answers'])[0]}.")]


def _task(row: Mapping[str, Json], level: str, *, answers: list[Json], tools: tuple[Mapping[str, Json], ...]) -> Task:
    ((asked,),) = cast(list[list[dict[str, str]]], row["question"])
    opening = (Message("system", SYSTEM), Message("user", asked["content"]))
    truth: dict[str, Json] = {"calls": [], "results": [], "state": True}
    number = str(row["id"]).rpartition("_")[2]
    return Task(f"bfcl_web/{level}/{number}", "bfcl_web", level, opening, tools, {"answers": answers}, (truth,))


def _tool(row: Mapping[str, Json]) -> dict[str, Json]:
    parameters = {**cast(dict[str, Json], row["parameters"]), "type": "object"}
    return {"type": "function", "function": {"name": row["name"], "description": row["description"], "parameters": parameters}}


ENTRY = Entry(BfclWeb, taskset, LEVELS, "", oracle, ready=key)
