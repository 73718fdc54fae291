"""Confidence in the answers of ``mesm predict`` and ``mesm locate``, and --min-confidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mesm_core import Answer, MomentRetriever
from mesm_core.confidence.calibration import Confidence, windows_confidence
from mesm_core.errors import CheckpointError, ConfigError
from mesm_core.inference.exchange import csv_text, edl_text
from mesm_core.inference.locate import Located, ranked_videos
from mesm_core.inference.windows import Piece, join_predictions, relative
from mesm_core.pages.located import write_located_page
from mesm_core.types import Prediction
from tests.cli.calibrated import train_calibrated
from tests.conftest import Trained

QUERY, ABSENT = "The man cuts a pan.", "A volcano buries the blorf xyzzy."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_calibrated(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def retriever(run: Trained) -> MomentRetriever:
    return MomentRetriever.load(run.best, device="cpu")


@pytest.fixture(scope="module")
def frames(run: Trained) -> np.ndarray:
    with h5py.File(run.paths.features[0]) as file:
        return np.asarray(file["test-000"][()], np.float32)


def answer(*confidences: float, query: str = QUERY, whole: float = 0.9) -> Answer:
    windows = np.array([[10.0 * n, 10.0 * n + 5, 0.9 - n / 10] for n in range(len(confidences))])
    return Answer(query, windows, np.zeros(8), 60.0, confidence=whole, confidences=np.array(confidences))


def sure(chance: float) -> Confidence:
    return Confidence(chance, np.array([chance / 2]))


def test_answers_have_a_confidence(retriever: MomentRetriever, frames: np.ndarray) -> None:
    (found,) = retriever.locate(frames, [QUERY], duration=60.0)
    assert found.confidence is not None
    assert 0 < found.confidence < 1
    assert all(moment.confidence <= found.confidence for moment in found.moments)
    assert found.as_json()["confidence"] == found.confidence
    assert found.as_json()["moments"][0]["confidence"] == found.moments[0].confidence


def test_nms_keeps_the_confidence_of_each_moment(retriever: MomentRetriever, frames: np.ndarray) -> None:
    (found,) = retriever.locate(frames, [QUERY], duration=60.0, nms=-1)
    kept = found.suppressed(0.3)
    before = {moment.start: moment for moment in found.moments}
    assert len(kept.moments) < len(found.moments)
    assert all(before[moment.start] == moment for moment in kept.moments)


def test_the_confidence_does_not_depend_on_other_queries_and_videos(
    retriever: MomentRetriever, frames: np.ndarray
) -> None:
    together = retriever.locate(frames, [QUERY, ABSENT], duration=60.0)
    alone = [retriever.locate(frames, [query], duration=60.0)[0] for query in (QUERY, ABSENT)]
    assert [a.confidence for a in together] == pytest.approx([a.confidence for a in alone], abs=1e-5)
    assert together[0].confidence > together[1].confidence  # whose words the model does not know


def test_a_video_in_windows_has_one_confidence(retriever: MomentRetriever, frames: np.ndarray) -> None:
    long = np.tile(frames, (8, 1))
    (found,) = retriever.locate(long, [QUERY], duration=480.0, window=60.0)
    assert found.window is not None
    assert 0 < found.confidence < 1
    assert len(found.confidences) == len(found.windows)
    assert (found.confidences <= found.confidence + 1e-12).all()


def test_windows_are_ranked_by_their_confidence() -> None:
    wrong = Prediction(None, QUERY, "v", np.array([[5.0, 9.0, 0.9]]), np.zeros(4))
    right = Prediction(None, QUERY, "v", np.array([[45.0, 49.0, 0.6]]), np.zeros(4))
    pieces = [Piece([np.zeros((4, 2))], first, first + 4, first * 10.0, 40.0) for first in (0, 4)]
    joined, confidence = join_predictions([wrong, right], pieces, [sure(0.1), sure(0.8)])
    assert joined.windows[:, 0].tolist() == [45, 5]
    assert confidence is not None
    whole, each = windows_confidence([sure(0.1), sure(0.8)])
    assert confidence.answer == whole
    assert confidence.moments.tolist() == [each[1].moments[0], each[0].moments[0]]
    np.testing.assert_allclose(joined.windows[:, 2], [0.6, round(0.9 * relative([p.answer for p in each])[0], 4)])


def test_moments_below_the_least_confidence_are_dropped() -> None:
    found = answer(0.6, 0.2, 0.7)
    assert [m.confidence for m in found.confident(0.5).moments] == [0.6, 0.7]
    assert found.confident(0.0).moments == found.moments
    none = found.confident(0.9)
    assert none.moments == ()
    assert none.rejected == found.moments[2]
    assert none.as_json()["rejected"]["confidence"] == 0.7
    assert none.prediction(1, "v").as_json()["pred_confidence"] == 0


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_a_least_confidence_outside_0_to_1_is_refused(least: float, run: Trained, mesm) -> None:
    with pytest.raises(ConfigError, match=r"in \[0, 1\]"):
        answer(0.5).confident(least)
    done = mesm("predict", run.best, "--video", "test-000", QUERY, f"--min-confidence={least}")
    assert done.code == 2
    assert "in [0, 1]" in done.err


def test_predict_shows_confidence(run: Trained, mesm) -> None:
    done = mesm("predict", run.best, "--video", "test-000", QUERY)
    assert done.code == 0, done.err
    assert "Confidence that the video has an answer" in done.out
    assert "no calibration" not in done.err
    (found,) = json.loads(mesm("predict", run.best, "--video", "test-000", QUERY, "--json").out)
    assert f"{found['moments'][0]['confidence']:.0%}" in done.out


def test_predict_says_that_no_answer_is_confident(run: Trained, tmp_path: Path, mesm) -> None:
    words = ["predict", run.best, "--video", "test-000", QUERY, "--min-confidence", "1"]
    done = mesm(*words, "--plot", tmp_path / "plot.html")
    assert done.code == 0, done.err
    assert "No confident answer: the surest moment" in done.out
    assert "No confident answer" in (tmp_path / "plot.html").read_text()
    (found,) = json.loads(mesm(*words, "--json").out)
    assert found["moments"] == []
    assert 0 < found["rejected"]["confidence"] < 1


def test_predictions_have_the_confidence_of_their_first_moment(run: Trained, tmp_path: Path, mesm) -> None:
    out = tmp_path / "out.jsonl"
    assert mesm("predict", run.best, "--video", "test-000", QUERY, "-o", out).code == 0
    (found,) = json.loads(mesm("predict", run.best, "--video", "test-000", QUERY, "--json").out)
    assert json.loads(out.read_text())["pred_confidence"] == pytest.approx(found["moments"][0]["confidence"], abs=1e-6)


def test_min_confidence_needs_a_calibration(trained: Trained, tmp_path: Path, mesm) -> None:
    out = tmp_path / "out.jsonl"
    words = ["--video", "test-000", QUERY, "--min-confidence", "0.5"]
    done = mesm("predict", trained.best, *words, "-o", out)
    assert done.code == 2
    assert "no calibration" in done.err
    assert "mesm calibrate" in done.err
    assert not out.exists()
    with pytest.raises(ConfigError, match="no calibration"):
        replace(answer(0.5), confidences=None).confident(0.5)


def test_locate_refuses_min_confidence_without_calibration_before_it_decodes(
    here: Path, zero: list[object], mesm
) -> None:
    (here / "a.mp4").write_bytes(b"not a video")
    done = mesm("locate", "a.mp4", "a ball", *zero, "--min-confidence", "0.5")
    assert done.code == 2
    assert "no calibration" in done.err


def test_a_calibration_of_another_model_is_refused(run: Trained, tmp_path: Path, mesm) -> None:
    content = torch.load(run.best, weights_only=True)
    content["model"] = {name: value + 0.5 for name, value in content["model"].items()}
    torch.save(content, tmp_path / "other.pt")
    done = mesm("predict", tmp_path / "other.pt", "--video", "test-000", QUERY)
    assert done.code == 2
    assert "belongs to another model" in done.err
    again = mesm("calibrate", tmp_path / "other.pt")
    assert again.code == 0, again.err
    assert mesm("predict", tmp_path / "other.pt", "--video", "test-000", QUERY).code == 0


def test_a_damaged_calibration_is_refused(run: Trained, tmp_path: Path) -> None:
    content = torch.load(run.best, weights_only=True)
    for value in ({**content["calibration"], "answer": ["x"]}, [1]):
        torch.save(content | {"calibration": value}, tmp_path / "bad.pt")
        with pytest.raises(CheckpointError, match="damaged"):
            MomentRetriever.load(tmp_path / "bad.pt", device="cpu")


def located(name: str, *answers: Answer) -> Located:
    return Located(Path(f"{name}.mp4"), 60.0, answers)


def test_videos_are_ranked_by_their_confidence() -> None:
    found = [located("a", answer(0.1, whole=0.2)), located("b", answer(0.5, whole=0.8))]
    assert ranked_videos(found) == {QUERY: [(Path("b.mp4"), 0.8), (Path("a.mp4"), 0.2)]}
    assert ranked_videos([located("a", replace(answer(0.1), confidence=None, confidences=None))]) == {}


def test_files_and_pages_show_the_confidence(tmp_path: Path) -> None:
    found = [located("a", answer(0.612)), located("b", answer(0.1, 0.2).confident(0.5))]
    assert csv_text(found, top=1).splitlines()[1].endswith(",0.9,0.612")
    assert "confidence 61%" in edl_text(found, top=1, rate=25)
    write_located_page(tmp_path / "page.html", found, top=2)
    page = (tmp_path / "page.html").read_text()
    assert "confidence 61%" in page
    assert "No confident answer: the surest moment, 10.0 to 15.0 s" in page


def test_eval_tests_the_confidence_on_negatives(run: Trained, tmp_path: Path, mesm) -> None:
    report, out = tmp_path / "report.html", tmp_path / "out.jsonl"
    words = ["eval", run.best, "--split", "test", "--negatives", "-o", out, "--report", report, "--overwrite"]
    done = mesm(*words, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["confidence"]
    assert found["unseen_half"] is False
    assert found["questions"]["real"] == json.loads(done.out)["queries"]
    assert 0 <= found["in_domain"]["rejected_at_95"] <= 1
    assert json.loads(out.with_suffix(".metrics.json").read_text())["confidence"] == found
    assert "Reliability" in report.read_text()
    table = mesm(*words)
    assert "rejected, 95% of queries kept" in table.out
    assert all(0 <= json.loads(line)["pred_confidence"] <= 1 for line in out.read_text().splitlines())


def test_eval_on_the_split_of_the_calibration_uses_the_half_that_it_has_not_seen(run: Trained, mesm) -> None:
    done = mesm("eval", run.best, "--split", "val", "--negatives", "--json")
    assert done.code == 0, done.err
    found, stored = json.loads(done.out)["confidence"], torch.load(run.best, weights_only=True)["calibration"]
    assert found.pop("unseen_half") is True
    assert found == json.loads(json.dumps(stored["report"]))


def test_eval_says_that_the_confidence_of_videos_in_windows_is_not_tested(run: Trained, tmp_path: Path, mesm) -> None:
    words = ["eval", run.best, "--split", "test", "--negatives", "-o", tmp_path / "out.jsonl", "--overwrite"]
    said = "The confidence is tested on whole videos, not in windows."
    assert said in mesm(*words, "--window", "30").err
    assert said not in mesm(*words).err


def test_eval_negatives_needs_a_calibration(trained: Trained, mesm) -> None:
    done = mesm("eval", trained.best, "--negatives")
    assert done.code == 2
    assert "no calibration" in done.err


def test_predictions_of_eval_and_predict_have_the_same_confidence(run: Trained, tmp_path: Path, mesm) -> None:
    assert mesm("eval", run.best, "--split", "test", "-o", tmp_path / "eval.jsonl").code == 0
    lines = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()]
    first = next(line for line in lines if line["vid"] == "test-000")
    words = ["--video", "test-000", first["query"], "--data-dir", run.root, "--window", "off"]
    assert mesm("predict", run.best, *words, "-o", tmp_path / "one.jsonl").code == 0
    one = json.loads((tmp_path / "one.jsonl").read_text())
    assert one["pred_confidence"] == pytest.approx(first["pred_confidence"], abs=1e-3)
