"""JSON lines as JSON has them, and what is said of files that are none."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.json_lines import objects

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ROWS = st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=5)


@given(ROWS)
def test_what_was_written_is_read_whatever_characters_it_has(
    tmp_path_factory: pytest.TempPathFactory, rows: list[object]
) -> None:
    file = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert list(objects(file, "")) == list(enumerate(rows, start=1))


@pytest.mark.parametrize(
    ("line", "told"), [("{", "line 3: not JSON"), ("[1]", "line 3: not an object"), ("[" * 100_000, "line 3: not JSON")]
)
def test_a_broken_line_is_named_with_the_remedy(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"text": "\u2028"}}\n\n{line}\n')
    with pytest.raises(ValueError, match=rf"{file}, {told}.*get it again"):
        list(objects(file, "get it again"))


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "rows.jsonl"
    if content:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file}: cannot be read .*get it again"):
        list(objects(file, "get it again"))
