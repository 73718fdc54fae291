"""``mesm score``, and its errors for files that cannot be scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesm_cli.commands.score import _short
from tests.cli.commands.scored import GOOD, TRUTH, write

POOR = [{"qid": q, "pred_relevant_windows": [[0, 3, 0.9]]} for q in (1, 2, 3)]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    return (
        write(tmp_path / "good.jsonl", GOOD),
        write(tmp_path / "poor.jsonl.gz", POOR),
        write(tmp_path / "truth.jsonl", TRUTH),
    )


def test_one_submission_is_scored(mesm, files: tuple[Path, Path, Path]) -> None:
    good, _, truth = files
    brief = json.loads(mesm("score", good, truth, "--json").out)["brief"]
    assert brief["MR-full-R1@0.5"] == 100
    assert brief["MR-full-mAP"] == 100
    assert brief["MR-short-mAP"] == 100
    assert not any(key.startswith("HL") for key in brief)
    assert "MR-full-mIoU" in mesm("score", good, truth).out
    suppressed = json.loads(mesm("score", good, truth, "--nms", "0.5", "--json").out)
    assert suppressed["brief"] == brief


def test_submissions_are_shown_side_by_side(mesm, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    good, poor, truth = files
    worst = tmp_path / "worst.jsonl"
    result = mesm("score", good, poor, "--truth", truth, "--ci", "--json", "--per-query", worst)
    both = json.loads(result.out)
    assert both[str(good)]["ci95"]["MR-full-R1@0.5"] == [100, 100]
    assert 0 < both[str(poor)]["p_value_against_first"]["MR-full-mIoU"] <= 1
    lines = [json.loads(line) for line in worst.read_text().splitlines()]
    assert len(lines) == 6
    assert lines[3]["iou"] <= lines[4]["iou"] <= lines[5]["iou"]
    assert mesm("score", good, poor, "--truth", truth, "--per-query", worst).code == 2
    table = mesm("score", good, poor, "--truth", truth, "--ci").out
    assert "100.00 to 100.00" in table


@pytest.mark.parametrize(
    ("form", "expected"),
    [("csv", "MR-full-mIoU,100.00"), ("markdown", "| MR-full-mIoU | 100.00 |"), ("latex", r"MR-full-mIoU & 100.00 \\")],
)
def test_table_formats(mesm, files: tuple[Path, Path, Path], form: str, expected: str) -> None:
    assert expected in mesm("score", files[0], files[2], "--format", form).out


def test_a_split_of_a_dataset_is_the_ground_truth(mesm, trained) -> None:
    predictions = trained.run / "predictions" / "val.jsonl"
    command = ["score", predictions, "--dataset", "tacos", "--split", "val", "--data-dir", trained.root, "--json"]
    result = mesm(*command)
    assert result.code == 0, result.err
    recorded = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    best = max((record for record in recorded), key=lambda record: record["select"]["score"])
    assert json.loads(result.out)["brief"] == best["eval"]["val"]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([*GOOD[:2], {"qid": 9, "pred_relevant_windows": []}], "1 without an answer: 3"),
        ([*GOOD[:2], {"qid": 9, "pred_relevant_windows": []}], "1 not in the ground truth: 9"),
        ([{"qid": 1, "pred_relevant_windows": [[5, 2, 1]]}], "line 1: window [5, 2] ends before it starts"),
        ([{"qid": 1, "pred_relevant_windows": [[5, 8]]}], "a score is missing"),
        (['{"qid": 1, "pred_relevant_windows": [[1, 2, NaN]]}'], "not finite"),
        ([*GOOD[:1], '{"qid": 2, "pred_rel'], "line 2"),
        ([{"qid": 1}], "'qid' and 'pred_relevant_windows'"),
        ([GOOD[0], GOOD[0]], "is repeated"),
        ([{"qid": 1, "pred_relevant_windows": [], "pred_saliency_scores": ["x"]}], "finite numbers"),
    ],
)
def test_invalid_submissions_are_refused(
    mesm, files: tuple[Path, Path, Path], tmp_path: Path, records: list[object], expected: str
) -> None:
    result = mesm("score", write(tmp_path / "bad.jsonl", records), files[2])
    assert result.code == 2
    assert expected in result.err
    assert "Traceback" not in result.err


def test_missing_and_damaged_files_are_refused(mesm, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    good, poor, truth = files
    (tmp_path / "cut.jsonl.gz").write_bytes(poor.read_bytes()[:-9])
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain")
    bare = write(tmp_path / "bare.jsonl", [{k: v for k, v in TRUTH[0].items() if k != "relevant_windows"}])
    for words, expected in (
        ((tmp_path / "cut.jsonl.gz", truth), "not a complete gzip file"),
        ((tmp_path / "no.jsonl.gz", truth), "not a complete gzip file"),
        ((tmp_path / "none.jsonl", truth), "No predictions"),
        ((good, bare), "have no windows"),
        ((good,), "TRUTH"),
        ((good, "--dataset", "tacos", "--split", "tst"), "Did you mean 'test'?"),
    ):
        result = mesm("score", *words)
        assert result.code == 2
        assert expected in result.err, result.err
    partly = mesm("score", write(tmp_path / "part.jsonl", GOOD[:2]), truth, "--allow-partial")
    assert partly.code == 0
    assert "2 of 3 queries" in partly.out


@pytest.mark.parametrize(("names", "short"), [
    (["best-test.jsonl", "last.jsonl"], ["best-test", "last"]),
    (["a.val.jsonl", "b.val.jsonl"], ["a", "b"]),
    (["one", "none"], ["one", "none"]),
    ([".jsonl", "a.jsonl"], [".jsonl", "a.jsonl"]),
])  # fmt: skip
def test_columns_are_named_without_the_common_suffixes(names: list[str], short: list[str]) -> None:
    assert _short(names) == short


def sure(*chances: object) -> list[dict[str, object]]:
    """Return the good predictions with a confidence; None leaves it out."""
    pairs = zip(GOOD, chances, strict=True)
    return [line if chance is None else {**line, "pred_confidence": chance} for line, chance in pairs]


def test_the_confidence_of_a_submission_is_scored(mesm, tmp_path: Path) -> None:
    truth = write(tmp_path / "t.jsonl", [*TRUTH[:2], {**TRUTH[2], "relevant_windows": [[0, 9]]}])
    predictions = write(tmp_path / "p.jsonl", sure(1, 0.8, 0.25))
    found = json.loads(mesm("score", predictions, truth, "--json").out)["confidence"]
    assert found["reliability"]["ece"] == pytest.approx((0 + 0.2 + 0.25) / 3)
    assert found["kept"][0]["R1"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["kept"][-1] == {"threshold": 0.95, "kept": pytest.approx(1 / 3, abs=1e-6), "R1": 1.0, "mIoU": 1.0}
    table = mesm("score", predictions, truth).out
    assert "ECE 15.0" in table
    assert "confidence from" in table


def test_a_confidence_that_some_answers_lack_is_not_scored(mesm, tmp_path: Path) -> None:
    truth = write(tmp_path / "t.jsonl", TRUTH)
    done = mesm("score", write(tmp_path / "p.jsonl", sure(0.5, None, 0.5)), truth, "--json")
    assert "1 of 3 answers have no pred_confidence" in done.err
    assert "confidence" not in json.loads(done.out)
    assert "confidence" not in json.loads(mesm("score", write(tmp_path / "g.jsonl", GOOD), truth, "--json").out)


@pytest.mark.parametrize("chance", [1.01, -0.1, True, "0.5", float("nan"), [0.5]])
def test_a_confidence_that_is_no_probability_is_refused(mesm, tmp_path: Path, chance: object) -> None:
    done = mesm("score", write(tmp_path / "p.jsonl", sure(0.5, chance, 0.5)), write(tmp_path / "t.jsonl", TRUTH))
    assert done.code == 2
    assert "line 2: pred_confidence must be a number in [0, 1]" in done.err
