"""BFCL's web-search tasks: answers judged as the package judges them, the two tools against servers on loopback."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from bfcl_eval.eval_checker.agentic_eval.agentic_checker import agentic_checker

from envs import bfcl_web
from envs.bfcl_web import LEVELS, BfclWeb, SearchFault, fetch, is_public, oracle, page_text, taskset
from envs.environment import environment
from envs.types import Message, Stop, Task, ToolCall, Trajectory, Turn
from rewards.user_turns import verdict

PAGE = "<html><script>x()</script><h2>Ferns</h2><p>They  like <a href='/shade'>shade</a>.<style>p{}</style></p></html>"
FOUND = [{"title": f"Fern {n}", "link": f"http://ferns/{n}", "snippet": "green"} for n in range(3)]
Page = tuple[int, dict[str, str], str]


@contextmanager
def server(answer: Callable[[str], Page]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, text = answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERPAPI_API_KEY", "k")
    monkeypatch.setattr(bfcl_web, "WAITS_S", (0.0,))


def answered(task: Task, *messages: Message) -> Trajectory:
    env = BfclWeb()
    env.reset(task)
    return Trajectory("t", task.id, tuple(Turn((), (), (), (), m, env.step(m)) for m in messages), Stop.DONE)


def asked(task: Task, name: str, **arguments: object) -> tuple[object, str]:
    env = BfclWeb()
    env.reset(task)
    outcome = env.step(Message("assistant", "", (ToolCall(name, arguments),))).signals.outcomes[0]  # type: ignore[arg-type]
    text = str(outcome.result)
    return (json.loads(text) if text[:1] in "[{" else text), outcome.error


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_has_its_questions_and_answers_are_judged_as_in_the_package(level: str):
    tasks = taskset("test", level)
    assert len(tasks) == len({task.id for task in tasks}) == 100 and taskset("train", level) == ()
    first = str(tasks[0].payload["answers"][0])  # type: ignore[index]
    for task in tasks:
        assert verdict(task, answered(task, *oracle(task))) == ""
        for text in ("", "I do not know.", "{'answer': '42', 'context': ''}", f"{first}!", first.upper()):
            right = agentic_checker(text, task.payload["answers"])["valid"]  # type: ignore[arg-type]
            assert (verdict(task, answered(task, Message("assistant", text))) == "") == right
    tools = [tool["function"] for tool in tasks[0].tools]
    assert [(tool["name"], tool["parameters"]["type"]) for tool in tools] == [  # type: ignore[index, call-overload]
        ("search_engine_query", "object"),
        ("fetch_url_content", "object"),
    ]


def test_without_a_key_it_is_refused(monkeypatch: pytest.MonkeyPatch):
    assert environment("bfcl_web").ready() == "k"
    monkeypatch.delenv("SERPAPI_API_KEY")
    with pytest.raises(ValueError, match="set SERPAPI_API_KEY"):
        environment("bfcl_web").ready()
    with pytest.raises(ValueError, match="set SERPAPI_API_KEY"):
        BfclWeb().reset(taskset("test", "base")[0])


def test_a_search_tells_what_was_found_with_snippets_or_without(monkeypatch: pytest.MonkeyPatch):
    queries: list[dict[str, list[str]]] = []

    def answer(path: str) -> Page:
        queries.append(parse_qs(urlsplit(path).query))
        return 200, {}, json.dumps({"error": "no results"} if queries[-1]["q"] == ["nothing"] else {"organic_results": FOUND})

    with server(answer) as url:
        monkeypatch.setattr(bfcl_web, "SEARCH", url)
        base, bare = taskset("test", "base")[0], taskset("test", "no_snippet")[0]
        assert asked(base, "search_engine_query", keywords="a fern", max_results=1) == (
            [{"title": "Fern 0", "href": "http://ferns/0", "body": "green"}],
            "",
        )
        found, error = asked(bare, "search_engine_query", keywords="a fern", region="uk-en")
        assert (len(found), found[0], error) == (3, {"title": "Fern 0", "href": "http://ferns/0"}, "")  # type: ignore[arg-type, index]
        assert asked(base, "search_engine_query", keywords="\ud800", region=["x"])[1] == "", "no fault, whatever is asked"
        assert asked(base, "search_engine_query", keywords="nothing") == ({"error": "no results"}, "no results")
        assert "keywords" in asked(base, "search_engine_query")[1] and asked(base, "fetch")[1] == "no tool is called fetch"
    assert queries[1] == {"engine": ["duckduckgo"], "q": ["a fern"], "kl": ["uk-en"], "api_key": ["k"]}


@pytest.mark.parametrize(("status", "tries"), [(401, 1), (429, 2), (500, 2)])
def test_a_service_that_fails_is_a_fault_and_no_answer(status: int, tries: int, monkeypatch: pytest.MonkeyPatch):
    paths: list[str] = []

    def answer(path: str) -> Page:
        paths.append(path)
        return status, {}, "{}"

    with server(answer) as url, pytest.raises(SearchFault, match=f"{status}.*is SERPAPI_API_KEY right"):
        monkeypatch.setattr(bfcl_web, "SEARCH", url)
        asked(taskset("test", "base")[0], "search_engine_query", keywords="a fern")
    assert len(paths) == tries


def test_a_page_is_fetched_in_three_ways(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bfcl_web, "is_public", lambda url: "/private" not in url)
    pages: dict[str, Page] = {
        "/": (200, {"Content-Type": "text/html; charset=utf-8"}, PAGE),
        "/long": (200, {}, "x" * 50_000),
        "/away": (302, {"Location": "/private"}, ""),
        "/private": (200, {}, "secret"),
        "/gone": (404, {}, ""),
    }
    with server(lambda path: pages[path]) as url:
        assert fetch(f"{url}/") == {"content": PAGE}
        assert fetch(f"{url}/", "truncate") == {"content": "Ferns\nThey like shade."}
        assert fetch(f"{url}/", "markdown") == {"content": "## Ferns\nThey like [shade](/shade)."}
        assert len(fetch(f"{url}/long")["content"]) == bfcl_web.MAX_CHARS  # type: ignore[index, call-overload, arg-type]
        for path, why in (("/away", "not an address in the web"), ("/gone", "404")):
            assert why in asked(taskset("test", "base")[0], "fetch_url_content", url=url + path)[1]
    assert "no mode is called pdf" in str(fetch("http://x", "pdf"))


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://169.254.169.254/x", "http://10.0.0.1", "file:///etc/passwd", "x"])
def test_the_clusters_own_network_is_not_the_web(url: str):
    assert not is_public(url)
    assert "not an address in the web" in str(fetch(url))


def test_text_that_is_hidden_or_unclosed_does_no_harm():
    assert page_text("<style>a</style></script>b</a><p>c<script>d", is_marked=True) == "b\nc"
