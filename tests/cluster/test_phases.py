import json
from argparse import Namespace
from pathlib import Path

from cluster import timeline_command
from cluster.phases import FILE, Phase, PhaseFile, chrome_trace, read


def test_what_overlaps_gets_rows_of_its_own_and_times_are_microseconds():
    phases = [
        Phase("group", "1", 100.0, 2.0, 0, "a"),
        Phase("group", "2", 101.0, 2.0, 0, "b"),
        Phase("group", "1", 102.5, 1.0, 0, "c"),
        Phase("learner", "update", 103.0, 0.5, 0),
    ]
    events = chrome_trace(phases)["traceEvents"]
    titles = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    drawn = [(titles[e["tid"]], e["name"], e["ts"], e["dur"], e["args"]["detail"]) for e in events if e["ph"] == "X"]
    assert drawn == [
        ("group", "1", 0, 2_000_000, "a"),
        ("group 1", "2", 1_000_000, 2_000_000, "b"),
        ("group", "1", 2_500_000, 1_000_000, "c"),
        ("learner", "update", 3_000_000, 500_000, ""),
    ]


def test_phases_come_back_but_for_a_line_cut_by_a_kill(tmp_path: Path):
    file = PhaseFile(tmp_path)
    assert file.add("learner", "update", begun=0.0, step=3) > 0
    file.close()
    with (tmp_path / FILE).open("a") as text:
        text.write('{"part": "learner", "wh')
    assert [(it.part, it.what, it.step) for it in read(tmp_path)] == [("learner", "update", 3)]


def test_the_command_writes_a_trace_and_names_a_folder_that_is_no_run(tmp_path: Path, capsys):
    assert timeline_command.main(Namespace(run=str(tmp_path))) == 2
    assert str(tmp_path) in capsys.readouterr().err
    file = PhaseFile(tmp_path)
    file.add("learner", "update", begun=0.0, step=0)
    file.close()
    assert timeline_command.main(Namespace(run=str(tmp_path))) == 0
    assert json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
