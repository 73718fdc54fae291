"""``mesm score`` with families of runs, and the comparison of two groups."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.commands.scored import TRUTH, write
from tests.conftest import Result, Trained
from tests.training.families import write_family

Mesm = Callable[..., Result]


def submission(path: Path, *ends: float) -> Path:
    """Write answers to the queries of TRUTH that begin at their moments and end at these times."""
    starts = (0, 12, 10)
    rows = zip((1, 2, 3), starts, ends, strict=True)
    return write(path, [{"qid": qid, "pred_relevant_windows": [[start, end, 0.9]]} for qid, start, end in rows])


@pytest.fixture
def groups(tmp_path: Path) -> tuple[list[Path], list[Path], Path]:
    """Three good and two poor submissions, and the ground truth."""
    good = [submission(tmp_path / f"good-{n}.jsonl", 10 - n, 20, 60 - n) for n in range(3)]
    poor = [submission(tmp_path / f"poor-{n}.jsonl", 3 + n, 14, 20) for n in range(2)]
    return good, poor, write(tmp_path / "truth.jsonl", TRUTH)


@pytest.fixture
def family(trained: Trained, tmp_path: Path) -> Path:
    """A family with two runs that are the same."""
    return write_family(tmp_path / "tacos-two", {2019: trained.run, 2020: trained.run}, trained)


def against(files: list[Path]) -> list[object]:
    return [word for file in files for word in ("--against", file)]


def test_groups_are_compared(mesm: Mesm, groups: tuple[list[Path], list[Path], Path]) -> None:
    good, poor, truth = groups
    found = json.loads(mesm("score", *good, *against(poor), "--truth", truth, "--json").out)
    assert (found["first"], found["second"]) == ([str(path) for path in good], [str(path) for path in poor])
    alone = [json.loads(mesm("score", path, truth, "--json").out)["brief"]["MR-full-mIoU"] for path in good]
    miou = found["metrics"]["MR-full-mIoU"]
    assert miou["first"] == {"mean": statistics.fmean(alone), "sd": statistics.stdev(alone), "values": alone}
    assert miou["difference"] == miou["first"]["mean"] - miou["second"]["mean"] > 0
    assert miou["p_runs"] == {"p": 0.1, "tried": 10, "smallest": 0.1, "exact": True}
    assert miou["p_videos"]["tried"] == 4  # TRUTH has two videos
    assert found["metrics"]["MR-short-mAP"]["p_videos"] is None


def test_the_comparison_says_what_it_exchanges(mesm: Mesm, groups: tuple[list[Path], list[Path], Path]) -> None:
    good, poor, truth = groups
    shown = mesm("score", *good, *against(poor), "--truth", truth)
    assert shown.code == 0, shown.err
    text = " ".join(shown.out.split())
    assert "the 3 + 2 runs are exchanged between the groups in all 10 ways; no p below 0.1 is possible" in text
    assert "answers about whole videos are exchanged in all 4 ways; no p below 0.5 is possible" in text
    table = mesm("score", *good, *against(poor), "--truth", truth, "--format", "csv").out
    assert table.splitlines()[0] == "metric,good-0.jsonl + 2,poor-0.jsonl + 1,difference,p (runs),p (videos)"


def test_groups_with_the_same_answers_do_not_differ(mesm: Mesm, tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.jsonl", TRUTH)
    files = [submission(tmp_path / f"{name}.jsonl", 9, 20, 50) for name in "abcd"]
    found = json.loads(mesm("score", *files[:2], *against(files[2:]), "--truth", truth, "--json").out)
    for metric in found["metrics"].values():
        assert metric["difference"] == 0
        assert metric["p_runs"]["p"] == 1
        assert metric["p_videos"] is None or metric["p_videos"]["p"] == 1


def test_a_family_is_scored_with_its_spread(mesm: Mesm, trained: Trained, family: Path) -> None:
    command = ["score", family, "--dataset", "tacos", "--data-dir", trained.root]
    found = json.loads(mesm(*command, "--json").out)
    assert list(found) == [str(family / f"seed-{seed}" / "predictions" / "val.jsonl") for seed in (2019, 2020)]
    shown = mesm(*command).out
    head = next(line.split() for line in shown.splitlines() if line.startswith("metric"))
    assert head == ["metric", "seed-2019", "seed-2020", "mean", "±", "sd"]
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("MR-full-mIoU")]
    assert row[1:] == [row[1], row[1], row[1], "±", "0.00"]


def test_families_are_compared(mesm: Mesm, trained: Trained, family: Path, tmp_path: Path) -> None:
    other = write_family(tmp_path / "tacos-other", {1: trained.run, 2: trained.run, 3: trained.run}, trained)
    command = ["score", family, "--against", other, "--dataset", "tacos", "--split", "val", "--data-dir", trained.root]
    shown = mesm(*command)
    assert shown.code == 0, shown.err
    assert "2 runs against 3" in shown.out
    assert "tacos-two" in shown.out
    truth = tmp_path / "truth.jsonl"
    words = ["prepare", "convert", truth, "--dataset", "tacos", "--split", "val"]
    assert mesm(*words, "--annotations", trained.paths.annotations).code == 0
    assert mesm("score", family, "--against", other, "--truth", truth, "--split", "val").code == 0


def test_groups_that_cannot_be_compared_are_refused(
    mesm: Mesm, groups: tuple[list[Path], list[Path], Path], family: Path, trained: Trained, tmp_path: Path
) -> None:
    good, poor, truth = groups
    part = write(tmp_path / "part.jsonl", [{"qid": 1, "pred_relevant_windows": [[0, 3, 0.9]]}])
    tacos = ["--dataset", "tacos", "--data-dir", trained.root]
    for words, message in (
        ([*good, "--against", good[0], "--truth", truth], "is in both groups"),
        ([*good, *against([poor[0], poor[0]]), "--truth", truth], "is given twice"),
        ([*good, "--against", poor[0], "--truth", truth, "--ci"], "no effect with --against"),
        ([*good, "--against", poor[0], "--truth", truth, "--per-query", tmp_path / "x"], "no effect with --against"),
        ([*good, "--against", part, "--truth", truth, "--allow-partial"], "scored on different queries"),
        ([family, *tacos, "--split", "test"], "has no predictions of test"),
        ([tmp_path, *tacos], "a folder without a run"),
    ):
        refused = mesm("score", *words)
        printed = " ".join(refused.err.replace("│", " ").split())  # the frame of a usage error wraps long paths
        assert (refused.code, message in printed) == (2, True), refused.err


def test_predictions_of_several_splits_need_a_choice(mesm: Mesm, family: Path, tmp_path: Path) -> None:
    (family / "seed-2019" / "predictions" / "best-test.jsonl").write_text("")
    refused = mesm("score", family, write(tmp_path / "truth.jsonl", TRUTH))
    assert (refused.code, "Choose the split with --split" in refused.err) == (2, True)
