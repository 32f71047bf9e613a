import json
import logging
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.ledger import Counts, End, Ledger, LedgerError
from envs.types import Assignment, Task


def assignment(assignment_id: int) -> Assignment:
    task = Task(f"t{assignment_id}", "shop", "1", (), (), {}, ())
    return Assignment(assignment_id, task, "solve", 0.5, "progress", 8, reason="because")


def test_each_admission_ends_exactly_once(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for at in range(5):
        ledger.admit(assignment(at), version=0)
    ledger.end(0, End.TRAINED, step=1)
    ledger.end(1, End.FILTERED)
    ledger.end(2, End.STALE)
    ledger.end(3, End.REISSUED)
    assert ledger.counts == Counts(5, 1, 1, 1, 1, 1)
    assert ledger.open_ids == (4,)


def test_an_event_is_on_disk_with_its_reason_when_the_call_returns(tmp_path):
    ledger = Ledger(tmp_path / "run" / "ledger.jsonl")
    ledger.admit(assignment(3), version=2)
    (line,) = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "event": "admitted", "id": 3, "task": "t3", "stage": "solve", "augmentation": 0.5,
        "reward": "progress", "reason": "because", "version": 2,
    }  # fmt: skip


def test_contradictions_are_refused_and_leave_no_trace(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.admit(assignment(0), version=0)
    with pytest.raises(LedgerError, match="7 cannot end as stale: it was never admitted"):
        ledger.end(7, End.STALE)
    with pytest.raises(LedgerError, match="with step None"):
        ledger.end(0, End.TRAINED)
    with pytest.raises(LedgerError, match="with step 3"):
        ledger.end(0, End.STALE, step=3)
    with pytest.raises(LedgerError, match="0 was admitted before"):
        ledger.admit(assignment(0), version=0)
    ledger.end(0, End.FILTERED)
    with pytest.raises(LedgerError, match="ended as filtered already"):
        ledger.end(0, End.TRAINED, step=1)
    assert len(path.read_text().splitlines()) == 2
    assert Ledger(path).counts == ledger.counts == Counts(1, 0, 0, 1, 0, 0)


def test_a_resume_voids_what_came_after_its_checkpoint(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for at in range(4):
        ledger.admit(assignment(at), version=0)
    for at, step in ((0, 1), (1, 2), (3, 2)):
        ledger.end(at, End.TRAINED, step=step)
    ledger.resume(1, next_id=3, still_open=[1, 2])
    assert ledger.open_ids == (1, 2)
    assert ledger.counts == Counts(3, 2, 1, 0, 0, 0)
    ledger.admit(assignment(3), version=1)
    ledger.end(3, End.TRAINED, step=2)
    assert Ledger(path).counts == ledger.counts == Counts(4, 2, 2, 0, 0, 0)


@pytest.mark.parametrize(
    "torn", [b'{"event": "ended", "id"', b'{"event": "ended", "id": 0, "end": "stale", "step": null}', b"\0\0\n"]
)
def test_a_torn_last_line_is_cut_off_with_a_warning(tmp_path, caplog, torn):
    path = tmp_path / "ledger.jsonl"
    Ledger(path).admit(assignment(0), version=0)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with caplog.at_level(logging.WARNING):
        ledger = Ledger(path)
    assert "torn" in caplog.text
    assert path.read_bytes() == whole
    ledger.end(0, End.FILTERED)
    assert Ledger(path).counts == Counts(1, 0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    "bad",
    [b"nonsense\n", b'{"event": "paid", "id": 0}\n', b'{"event": "ended", "id": 9, "end": "stale", "step": null}\n'],
)
def test_a_damaged_middle_is_an_error_with_its_line(tmp_path, bad):
    path = tmp_path / "ledger.jsonl"
    Ledger(path).admit(assignment(0), version=0)
    whole = path.read_bytes()
    path.write_bytes(bad + whole)
    with pytest.raises(LedgerError, match="line 1: "):
        Ledger(path)
    assert path.read_bytes() == bad + whole


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(0, 12)),
        st.tuples(st.just("end"), st.integers(0, 12), st.sampled_from(End), st.integers(0, 5)),
        st.tuples(st.just("resume"), st.integers(0, 5), st.integers(0, 12), st.frozensets(st.integers(0, 12))),
    ),
    max_size=60,
)


def play(ledger: Ledger, event: tuple) -> None:
    match event:
        case ("admit", key):
            ledger.admit(assignment(key), version=0)
        case ("end", key, end, step):
            ledger.end(key, end, step if end is End.TRAINED else None)
        case ("resume", step, next_id, still_open):
            ledger.resume(step, next_id=next_id, still_open=still_open)


def totals(path: Path) -> Counter[str]:
    """An independent account: the last word on every id, with whole lists in place of a table of fates."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    live: list[tuple[int, str, int]] = []
    for event in events:
        if event["event"] == "resumed":
            live = [(row[0], "open", -1) if row[0] in event["open"] else row for row in live if row[0] < event["next_id"]]
            live = [row for row in live if row[0] in event["open"] or (row[1] != "open" and row[2] <= event["step"])]
        else:
            end = event.get("end", "open")
            step = event.get("step")
            live = [row for row in live if row[0] != event["id"]] + [(event["id"], end, -1 if step is None else step)]
    return Counter(end for _, end, _ in live)


@settings(max_examples=60)
@given(EVENTS)
def test_any_interleaving_balances_and_replays_alike(events):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        live = Ledger(path)
        for event in events:
            try:
                play(live, event)
            except LedgerError:
                pass
            assert live.counts.is_balanced
        again, expected = Ledger(path), totals(path)
        assert (again.counts, again.open_ids) == (live.counts, live.open_ids)
        counts = live.counts
        assert counts.admitted == expected.total()
        assert (counts.open, counts.trained, counts.filtered, counts.stale, counts.reissued) == tuple(
            expected[end] for end in ("open", "trained", "filtered", "stale", "reissued")
        )


@pytest.mark.parametrize("end", [End.FILTERED, End.STALE, End.REISSUED])
def test_what_was_open_at_the_checkpoint_can_end_again_however_it_ended_since(tmp_path, end):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for at in range(3):
        ledger.admit(assignment(at), version=0)
    ledger.end(0, End.FILTERED)  # before the checkpoint
    ledger.end(1, end)  # after it
    ledger.resume(1, next_id=3, still_open=[1])
    assert ledger.counts == Counts(2, 1, 0, 1, 0, 0)  # 2 was handed out after the checkpoint's books were closed
    ledger.end(1, End.TRAINED, step=2)
    assert Ledger(path).counts == ledger.counts == Counts(2, 0, 1, 1, 0, 0)


def test_a_resume_of_an_older_version_tells_nothing_of_what_was_open(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.admit(assignment(0), version=0)
    ledger.end(0, End.TRAINED, step=2)
    ledger.close()
    with path.open("a") as file:
        file.write('{"event": "resumed", "step": 1, "next_id": 1}\n')
    assert Ledger(path).open_ids == (0,)
