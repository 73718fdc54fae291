"""``mesm score`` refuses ambiguous input or warns about it, so that no wrong score goes unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands.scored import GOOD, TRUTH, write


def truth_with(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ground truth with its first lines changed."""
    return [{**line, **(changes[row] if row < len(changes) else {})} for row, line in enumerate(TRUTH)]


def marks(clips: list[Any], scores: list[Any]) -> dict[str, Any]:
    return {"relevant_clip_ids": clips, "saliency_scores": scores}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([marks([0, 1], [[1, 2, 3], [1, 2]])], "line 1: clip 1 has 2 saliency_scores, clip 0 has 3"),
        ([marks([0], [[1, 2, 3]]), marks([0], [[1, 2]])], "line 2: 2 saliency_scores per clip, but 3 in line 1"),
        ([marks([0], [[1, float("nan"), 3]])], "line 1: saliency_scores of clip 0 are not finite"),
        ([marks([0], [None])], "line 1: saliency_scores must be lists of numbers"),
        ([marks([0], [[]])], "line 1: clip 0 has no saliency_scores"),
        ([marks([1, 1], [[1, 2, 3], [0, 0, 0]])], "line 1: relevant clip id 1 is repeated"),
        ([{}, {"duration": 21}], "line 2: video 'v' lasts 21 s, but 20 s in line 1"),
        ([{"relevant_windows": [[True, 5]]}], "line 1: relevant_windows has true or false"),
        ([marks([0], [[1, False, 3]])], "line 1: saliency_scores has true or false"),
        ([{"relevant_windows": [[None, 5]]}], "is not [start, end]"),
        ([{"relevant_windows": [[0, float("inf")]]}], "is not finite"),
    ],
)
def test_invalid_ground_truth_is_refused(mesm, tmp_path: Path, changes: list[dict[str, Any]], expected: str) -> None:
    result = mesm("score", write(tmp_path / "p.jsonl", GOOD), write(tmp_path / "t.jsonl", truth_with(*changes)))
    assert result.code == 2
    assert expected in result.err, result.err


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"pred_relevant_windows": [[True, 5, 1]]}, "line 1: windows must be rows of [start, end, score]"),
        ({"pred_relevant_windows": [["1", "5", "1"]]}, "line 1: windows must be rows of [start, end, score]"),
        ({"pred_relevant_windows": [[None, 5, 1]]}, "line 1: windows must be rows of [start, end, score]"),
        ({"pred_relevant_windows": {"abc": 1}}, "line 1: windows must be rows of [start, end, score]"),
        ({"pred_relevant_windows": None}, "line 1: windows must be rows of [start, end, score]"),
        ({"pred_relevant_windows": [[0, float("inf"), 1]]}, "line 1: a window or its score is not finite"),
        ({"pred_relevant_windows": [[0, 10**400, 1]]}, "line 1: a number has 401 digits"),
        ({"pred_saliency_scores": [True, False]}, "list of finite numbers"),
        ({"pred_saliency_scores": [1.0, float("nan")]}, "list of finite numbers"),
        ({"qid": [1]}, "line 1: the qid is [1]; it must be an integer or a string"),
        ({"qid": True}, "line 1: the qid is True; it must be an integer or a string"),
    ],
)
def test_invalid_predictions_are_refused(mesm, tmp_path: Path, record: dict[str, Any], expected: str) -> None:
    predictions = write(tmp_path / "p.jsonl", [GOOD[0] | record, *GOOD[1:]])
    result = mesm("score", predictions, write(tmp_path / "t.jsonl", TRUTH))
    assert result.code == 2
    assert expected in result.err, result.err


def with_saliency(*lengths: int | None) -> list[dict[str, Any]]:
    """Return the predictions with that many saliency scores each; None for none."""
    return [
        line if length is None else line | {"pred_saliency_scores": [float(row) for row in range(length)]}
        for line, length in zip(GOOD, lengths, strict=True)
    ]


@pytest.mark.parametrize(
    ("lengths", "code", "expected"),
    [
        ((10, 10, 30), 0, ""),
        ((9, 10, 31), 0, "padded with 0 in 1 queries and cut in 1"),
        ((10, 10, 1), 2, "query 3 has 1 saliency scores for 30 clips"),
        ((10, 0, 30), 2, "query 2 has 0 saliency scores for 10 clips"),
        ((20, 20, 60), 2, "query 1 has 20 saliency scores for 10 clips"),
        ((10, None, 30), 0, "1 of 3 answers have no saliency, so highlights are not scored"),
        ((None, None, None), 0, ""),
    ],
)
def test_saliency_with_a_wrong_number_of_scores(
    mesm, tmp_path: Path, lengths: tuple[int | None, ...], code: int, expected: str
) -> None:
    truth = write(tmp_path / "t.jsonl", truth_with(*[marks([1], [[4, 3, 2]])] * 3))
    result = mesm("score", write(tmp_path / "p.jsonl", with_saliency(*lengths)), truth, "--json")
    assert result.code == code, result.err
    assert expected in " ".join(result.err.split())
    assert ("Warning" in result.err) == (code == 0 and expected != "")
    if code == 0:
        assert ("HL-min-Fair-mAP" in json.loads(result.out)["brief"]) == (None not in lengths)


@pytest.mark.parametrize("threshold", ["0", "1.5", "-0.5", "-2", "nan", "inf"])
def test_invalid_nms_thresholds_are_refused(mesm, tmp_path: Path, threshold: str) -> None:
    predictions, truth = write(tmp_path / "p.jsonl", GOOD), write(tmp_path / "t.jsonl", TRUTH)
    result = mesm("score", predictions, truth, "--nms", threshold)
    assert result.code == 2
    assert "is an overlap in (0, 1], or -1 for none" in " ".join(result.err.split())
    assert mesm("score", predictions, truth, "--nms", "1").code == 0
    assert mesm("score", predictions, truth, "--nms", "-1").code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--split", "val"], "--dataset"),
        (["--annotations", "x"], "--dataset"),
        (["--dataset", "tacos", "--truth", "t.jsonl"], "not both"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_options_without_effect_are_refused(
    mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("p.jsonl"), GOOD), write(Path("t.jsonl"), TRUTH)
    result = mesm("score", "p.jsonl", "t.jsonl", *words)
    assert result.code == 2
    assert expected in result.err


def test_the_same_file_twice_is_refused(mesm, tmp_path: Path) -> None:
    predictions, truth = write(tmp_path / "p.jsonl", GOOD), write(tmp_path / "t.jsonl", TRUTH)
    result = mesm("score", predictions, predictions, "--truth", truth, "--json")
    assert result.code == 2
    assert "given twice" in result.err


def test_ids_of_different_types_do_not_match(mesm, tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.jsonl", [line | {"qid": str(line["qid"])} for line in GOOD])
    result = mesm("score", predictions, write(tmp_path / "t.jsonl", TRUTH))
    assert result.code == 2
    assert "not in the ground truth: '1', '2', '3'" in result.err


def test_repairs_of_the_ground_truth_are_reported(mesm, tmp_path: Path) -> None:
    truth = write(tmp_path / "t.jsonl", truth_with({"relevant_windows": [[10, 0]]}))
    result = mesm("score", write(tmp_path / "p.jsonl", GOOD), truth)
    assert result.code == 0
    assert "1 inverted (swapped)" in " ".join(result.err.split())
