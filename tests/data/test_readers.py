"""Readers of Charades and JSON lines: repairs, errors, and a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesm_core.data.readers import read_split
from mesm_core.data.readers.json_lines import read_lines, write_lines
from mesm_core.errors import DataError
from mesm_core.types import Highlights, Query

LINE = {"vid": "v1", "duration": 10.0, "query": "He cuts.", "qid": 7, "relevant_windows": [[1, 4]]}


def charades(folder: Path, text: str, lengths: str = "v1,10\nv2,20\n", split: str = "test") -> Path:
    (folder / f"charades_sta_{split}.txt").write_text(text)
    (folder / f"Charades_v1_{split}.csv").write_text("id,length\n" + lengths)
    return folder


def test_charades_annotations_are_repaired(tmp_path: Path) -> None:
    text = "v1 1 12##a\nv1 11 12##b\nv2 9 3##c\nv2 0.5 20.0##d e\n"
    read = read_split("charades", charades(tmp_path, text), "test")
    assert [(q.qid, q.windows[0], q.repaired) for q in read.queries] == [
        (0, (1.0, 10.0), True),
        (2, (3.0, 9.0), True),
        (3, (0.5, 20.0), False),
    ]
    assert read.repairs == {"cut to the video": 1, "starts after the video (dropped)": 1, "inverted (swapped)": 1}
    train = read_split("charades", charades(tmp_path, text, split="train"), "train")
    assert {query.qid for query in train.queries} == {None}


@pytest.mark.parametrize(
    ("text", "lengths", "expected"),
    [
        ("v1 1 2##a\nv1 1 2 a\n", "v1,10\n", r"charades_sta_test\.txt, line 2"),
        ("v1 1 x##a\n", "v1,10\n", "line 1"),
        ("v1 1 nan##a\n", "v1,10\n", "line 1"),
        ("v1 1 2## \n", "v1,10\n", "sentence is empty"),
        ("v9 1 2##a\n", "v1,10\n", "v9 is not in"),
        ("v1 1 2##a\n", "v1,0\n", r"csv, line 2: the length of v1"),
        ("v1 1 2##a\n", "v1,ten\n", r"csv, line 2"),
    ],
)
def test_charades_mistakes_are_refused(tmp_path: Path, text: str, lengths: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        read_split("charades", charades(tmp_path, text, lengths), "test")


def test_a_charades_table_without_columns_is_refused(tmp_path: Path) -> None:
    charades(tmp_path, "v1 1 2##a\n")
    (tmp_path / "Charades_v1_test.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="'id' and 'length'"):
        read_split("charades", tmp_path, "test")


def test_charades_cg_ids_count_dropped_queries(tmp_path: Path) -> None:
    video = {"timestamps": [[11, 12], [1, 2]], "sentences": ["a", "b"], "duration": 10}
    (tmp_path / "novel_word.json").write_text(json.dumps({"v": video}))
    assert [q.qid for q in read_split("charades-cg", tmp_path, "novel_word").queries] == [2]
    (tmp_path / "novel_word.json").write_text(json.dumps({"v": video | {"duration": 0}}))
    with pytest.raises(DataError, match="'duration' is 0"):
        read_split("charades-cg", tmp_path, "novel_word")


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def test_json_lines_are_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", LINE, "", LINE | {"qid": 8, "relevant_windows": [[5, 2], [8, 12], [11, 12]]})
    read = read_lines(path)
    assert [query.windows for query in read.queries] == [((1.0, 4.0),), ((2.0, 5.0), (8.0, 10.0))]
    assert read.repairs["inverted (swapped)"] == 1
    assert read_split("jsonl", tmp_path, "a").queries == read_split("jsonl", Path(), str(path)).queries
    with pytest.raises(DataError, match="line 3: window"):
        read_lines(path, strict=True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"duration": 0}, "duration is 0"),
        ({"duration": True}, "duration is True"),
        ({"query": " "}, "query is empty"),
        ({"relevant_windows": [[1]]}, "not \\[start, end\\]"),
        ({"relevant_windows": [[1, None]]}, "not \\[start, end\\]"),
        ({"relevant_clip_ids": [9], "saliency_scores": [[1, 2, 3]]}, "clip id 9 is out of range"),
        ({"relevant_clip_ids": [1, 2], "saliency_scores": [[1, 2, 3]]}, "2 relevant_clip_ids, but 1"),
        ({"relevant_clip_ids": [1], "saliency_scores": [["x"]]}, "lists of numbers"),
    ],
)
def test_json_line_mistakes_are_refused(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        read_lines(lines(tmp_path / "a.jsonl", LINE, LINE | {"qid": 8} | change))
    assert "line 2" in str(caught.value)


def test_invalid_json_lines_files_are_refused(tmp_path: Path) -> None:
    for record, expected in (("{", "line 1"), ("[1]", "found list"), ({"vid": "v"}, "lacks duration, query")):
        with pytest.raises(DataError, match=expected):
            read_lines(lines(tmp_path / "a.jsonl", record))
    with pytest.raises(DataError, match="7 was used before, in line 1"):
        read_lines(lines(tmp_path / "a.jsonl", LINE, LINE))
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_lines(tmp_path / "a.jsonl")


text = st.text(min_size=1, max_size=30).filter(lambda s: s.strip() and s.encode(errors="ignore").decode() == s)
window = st.tuples(st.floats(0, 5, width=32), st.floats(5, 10, width=32))
marks = st.builds(
    lambda clips: Highlights(tuple(clips), tuple((1.0, float(c), 3.0) for c in clips)),
    st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(text, text, st.lists(window, max_size=3), st.none() | marks), min_size=1, max_size=5))
def test_written_json_lines_are_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    queries = tuple(
        Query(number, vid, sentence, 10.0, tuple(windows), highlights=highlights)
        for number, (vid, sentence, windows, highlights) in enumerate(rows)
    )
    write_lines(path, queries, overwrite=False)
    assert read_lines(path).queries == queries
