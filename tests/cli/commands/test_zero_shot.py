"""``mesm eval`` and ``mesm predict`` with ``zero-shot`` instead of a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mesm_core.build import data_paths
from mesm_core.config.load import load_config
from mesm_core.errors import FeatureError
from mesm_core.inference.zero_shot_files import clip_features, names_zero_shot
from mesm_core.text.clip_weights import PROJECTION, write_clip_text
from tests.conftest import Trained
from tests.text.tiny_towers import WIDTH, tiny

QUERY = "The man cuts a pan."
FEATURES = 12
"""Width of the invented features, which stand for CLIP's here."""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A small text tower whose projection is as wide as the invented features."""
    path = tmp_path / "clip.safetensors"
    projection = torch.randn(WIDTH, FEATURES, generator=torch.Generator().manual_seed(0))
    write_clip_text(path, tiny().state_dict() | {PROJECTION: projection}, heads=2, activation="quick_gelu")
    return path


@pytest.fixture
def where(trained: Trained, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Options with the paths of the data; the working folder is empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return ["--data-dir", trained.root, "--clip", clip]


def error_text(result) -> str:
    assert result.code == 2, result.out
    return " ".join(result.err.split())


def test_a_split_is_scored_with_zero_shot(mesm, where, trained: Trained) -> None:
    done = mesm("eval", "zero-shot", "--dataset", "tacos", "--split", "test", *where, "--json")
    assert done.code == 0, done.err
    tables = json.loads(done.out)
    assert (tables["checkpoint"], tables["epoch"], tables["dataset"]) == ("zero-shot", None, "tacos")
    predictions = Path("runs/tacos-zero-shot/predictions/zero-shot-test.jsonl")
    assert tables["predictions"] == str(predictions)
    assert len(predictions.read_text().splitlines()) == tables["queries"] > 0
    assert predictions.with_suffix(".metrics.json").is_file()
    words = ["--dataset", "tacos", "--split", "test", "--data-dir", trained.root, "--json"]
    scored = mesm("score", predictions, *words)
    assert scored.code == 0, scored.err
    assert '"MR-full-R1@0.5": ' + json.dumps(tables["brief"]["MR-full-R1@0.5"]) in scored.out
    shown = mesm("eval", "zero-shot", "--dataset", "tacos", "--split", "test", *where, "-o", "/dev/null")
    assert "zero-shot (without training) on test" in " ".join(shown.out.split())
    assert mesm("eval", "zero-shot", "--dataset", "tacos", *where, "--report", "report.html").code == 0
    assert Path("report.html").is_file()


def test_a_video_can_be_queried_without_a_dataset(mesm, where, trained: Trained) -> None:
    words = ["predict", "zero-shot", *where, "--json", QUERY, "--features"]
    with h5py.File(trained.paths.features[0]) as file:
        seconds = float(file["test-000"].attrs["duration"])
    stored = mesm(*words, trained.paths.features[0], "--video", "test-000")
    assert stored.code == 0, stored.err
    assert "never trained on moments" in " ".join(stored.err.split())
    (answer,) = json.loads(stored.out)
    assert answer["duration"] == pytest.approx(seconds)
    assert 0 < len(answer["moments"]) <= 5
    assert all(0 <= m["start"] < m["end"] <= seconds and 0 < m["score"] <= 1 for m in answer["moments"])
    array = trained.root / "npy" / "test-000.npy"
    (again,) = json.loads(mesm(*words, array, "--duration", seconds).out)
    assert again["moments"] == answer["moments"]
    assert len(answer["saliency"]) == len(np.load(array))
    assert "The duration of video 'test-000' is unknown: the feature file does not have it." in error_text(
        mesm(*words, array)
    )
    (known,) = json.loads(mesm(*words, array, "--dataset", "tacos").out)  # the annotations say it
    assert known["duration"] == pytest.approx(seconds, abs=2)


def test_evaluation_and_prediction_agree(mesm, where, trained: Trained) -> None:
    mesm("eval", "zero-shot", "--dataset", "tacos", "--split", "test", *where, "-o", "eval.jsonl")
    lines = [json.loads(line) for line in Path("eval.jsonl").read_text().splitlines()]
    asked = "".join(json.dumps({key: line[key] for key in ("qid", "vid", "query")}) + "\n" for line in lines)
    Path("queries.jsonl").write_text(asked)
    words = ["--features", trained.paths.features[0], "--queries", "queries.jsonl", "-o", "predict.jsonl"]
    assert mesm("predict", "zero-shot", "--dataset", "tacos", *where, *words).code == 0
    again = [json.loads(line) for line in Path("predict.jsonl").read_text().splitlines()]
    assert [line["qid"] for line in again] == [line["qid"] for line in lines]
    for one, other in zip(lines, again, strict=True):
        # The feature file's durations are rounded to frames, the annotations' are not.
        assert np.allclose(one["pred_relevant_windows"][0], other["pred_relevant_windows"][0], atol=1.0)


def test_invalid_options_are_refused(mesm, where, trained: Trained, tmp_path: Path) -> None:
    assert "No dataset was chosen: give --dataset NAME" in error_text(mesm("eval", "zero-shot", *where))
    assert "needs feature files" in error_text(mesm("predict", "zero-shot", *where, "--video", "x", QUERY))
    chosen = error_text(mesm("eval", trained.best, "--dataset", "tacos"))
    assert "--dataset selects the settings of zero-shot" in chosen
    assert "has its own" in error_text(mesm("predict", trained.best, "--dataset", "tacos", "--video", "x", QUERY))
    tacos = ["eval", "zero-shot", "--dataset", "tacos", "--data-dir", trained.root]
    assert "give --clip" in error_text(mesm(*tacos, "--glove", trained.paths.text))
    assert "No CLIP weights at" in error_text(mesm(*tacos))
    bare = tmp_path / "bare.safetensors"
    write_clip_text(bare, tiny().state_dict(), heads=2, activation="quick_gelu")
    assert "mesm prepare clip-text" in error_text(mesm(*tacos, "--clip", bare))
    other = tmp_path / "other.safetensors"
    write_clip_text(other, tiny().state_dict() | {PROJECTION: torch.ones(WIDTH, 7)}, heads=2, activation="quick_gelu")
    needed = "The features are 12 wide; zero-shot needs CLIP image features, 7 wide like the text projection."
    assert needed in error_text(mesm(*tacos, "--clip", other))
    array = trained.root / "npy" / "test-000.npy"
    words = ["--duration", 9, "--data-dir", trained.root, "--clip", other]
    assert needed in error_text(mesm("predict", "zero-shot", QUERY, "--features", array, *words))
    assert not list(Path().iterdir())


def test_the_preset_determines_the_file_of_clip(tmp_path: Path) -> None:
    config = load_config("charades")
    paths = data_paths(config, tmp_path)
    paths.features[0].parent.mkdir(parents=True)
    for name, width in ((paths.features[0], 512), (tmp_path / "slowfast.hdf5", 2304), (tmp_path / "none.hdf5", 0)):
        with h5py.File(name, "w") as file:
            if width:
                file["v"] = np.ones((4, width), np.float16)
    store = clip_features(config, paths, given=False, width=512)  # SlowFast's file is not there
    assert store.paths == paths.features[:1]
    given = data_paths(config, tmp_path, features=[tmp_path / "none.hdf5", tmp_path / "slowfast.hdf5", store.paths[0]])
    assert clip_features(config, given, given=True, width=512).paths == paths.features[:1]
    with pytest.raises(FeatureError, match="No feature file at"):
        clip_features(config, data_paths(config, tmp_path / "empty"), given=False, width=512)
    swapped = data_paths(config, tmp_path, features=[tmp_path / "slowfast.hdf5", store.paths[0]])
    assert clip_features(config, swapped, given=True, width=512).paths == paths.features[:1]
    with pytest.raises(FeatureError, match="are 512 and 2304 wide; zero-shot needs CLIP image features, 768 wide"):
        clip_features(config, paths, given=False, width=768)


def test_a_checkpoint_may_be_called_zero_shot(mesm, where, trained: Trained) -> None:
    assert names_zero_shot(Path("zero-shot"))
    Path("zero-shot").mkdir()
    assert names_zero_shot(Path("zero-shot"))
    Path("zero-shot").rmdir()
    shutil.copy(trained.best, "zero-shot")
    assert not names_zero_shot(Path("zero-shot"))
    done = mesm("eval", "zero-shot", "--split", "test", "--json", "-o", "out.jsonl")
    assert json.loads(done.out)["epoch"] is not None
