"""Training on a folder of the user's videos: missing features are extracted once, before training, and reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mesm_cli.commands import own_videos
from mesm_cli.commands.training_plan import new_settings
from mesm_core.backbones.pixels import Pixels
from mesm_core.build import build_features, data_paths
from mesm_core.build.videos import features_folder
from mesm_core.config.load import load_config
from mesm_core.errors import ConfigError, DataError, FeatureError
from mesm_core.training.start import Given
from tests.extraction.made import make_videos

MINE = """\
preset = "jsonl"

[dataset]
train = "train.jsonl"
eval = "val.jsonl"
annotations = "."
videos = "videos"
backbones = ["pixels"]
clip_len = 0.2

[text]
glove = "glove.txt"

[model]
text_dim = 4
hidden_dim = 16
heads = 2
dim_feedforward = 32
segment_sentence_layers = 1
slots = 4

[train]
batch_size = 2
epochs = 1
"""
FEATURES = Path("features/0.2s/pixels.hdf5")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with five videos of one second; the training file names them with their suffix."""
    folder = tmp_path / "mine"
    folder.mkdir()
    make_videos(folder / "videos", 5, frames=25)
    words = ["a", "shape", "moves", "grows", "red", "blue"]
    (folder / "glove.txt").write_text("".join(f"{w} {n} 1 {n % 2} 0.5\n" for n, w in enumerate(words)))
    for split, numbers, ending in (("train", (0, 1, 2), ".avi"), ("val", (3,), ""), ("test", (4,), "")):
        lines = [
            {"vid": f"v{n:04d}{ending}", "duration": 1.0, "query": sentence, "relevant_windows": [[at, at + 0.4]]}
            for n in numbers
            for sentence, at in (("a red shape moves", 0.0), ("a blue shape grows", 0.5))
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "mine.toml").write_text(MINE)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of rows of each call of the backbone."""
    calls: list[int] = []
    encode = Pixels.encode

    def counted(self: Pixels, samples):
        calls.append(len(samples))
        return encode(self, samples)

    monkeypatch.setattr(Pixels, "encode", counted)
    return calls


def run(mesm, *words: object) -> tuple[str, str]:
    result = mesm(*words)
    assert result.code == 0, (words, result.err)
    return result.out, " ".join(result.err.split())


def refused(mesm, *words: object) -> str:
    result = mesm(*words)
    assert (result.code, "Traceback" in result.err) == (2, False), result.err
    return " ".join(result.err.split())


def test_a_folder_of_videos_is_extracted_trained_and_scored(
    mesm, mine: Path, encoded: list[int], tmp_path: Path, monkeypatch
) -> None:
    run(mesm, "count-tokens", "--config", "mine.toml")
    before, _ = run(mesm, "prepare", "check", "--config", "mine.toml")
    assert "4 of 4 videos have no features yet" in before
    _, said = run(mesm, "train", "--config", "mine.toml")
    assert "4 of 4 videos without features: extracting pixels, 0.2 s per row" in said
    assert FEATURES.is_file()
    assert sum(encoded) == 4 * 5
    kept = json.loads(Path("runs/jsonl-default/config.json").read_text())
    assert kept["dataset"]["videos"] == str(mine / "videos")
    assert (kept["model"]["video_dim"], kept["dataset"]["clip_len"]) == (256, 0.2)
    after, _ = run(mesm, "prepare", "check", "--config", "mine.toml")
    assert "all 4 videos have features" in after

    monkeypatch.chdir(tmp_path)
    encoded.clear()
    best = mine / "runs" / "jsonl-default" / "best.pt"
    run(mesm, "train", "--resume", best.parent, "--set", "train.epochs=2")
    assert encoded == []
    out, _ = run(mesm, "eval", best, "--split", mine / "test.jsonl", "--json")
    assert json.loads(out)["queries"] == 2
    assert sum(encoded) == 5
    run(mesm, "predict", best, "--video", "v0004.avi", "a red shape moves")


def extract(file: str = "mine.toml", *, skip_missing: bool = False) -> list[str]:
    """Run the extraction that precedes training, and return its output."""
    config = load_config(file=Path(file))
    said: list[str] = []
    own_videos.extract_missing(
        config,
        data_paths(config, Path()),
        (config.dataset.train, *config.dataset.eval),
        device="cpu",
        skip_missing=skip_missing,
        say=said.append,
    )
    return said


def test_a_video_that_changed_is_extracted_again(mine: Path, encoded: list[int], capsys) -> None:
    assert len(extract()) == 2
    encoded.clear()
    assert extract() == []
    shutil.copy("videos/v0004.avi", "videos/v0003.avi")
    assert len(extract()) == 1
    assert "1 video had features of other content or other settings" in " ".join(capsys.readouterr().err.split())
    assert sum(encoded) == 5
    Path("videos/v0003.avi").unlink()
    assert extract() == []  # its features are there


def test_other_settings_extract_the_videos_of_all_splits_again(mine: Path, encoded: list[int], monkeypatch) -> None:
    config = load_config(file=Path("mine.toml"))
    paths = data_paths(config, Path())
    own_videos.extract_missing(config, paths, ["train", "val", "test.jsonl"], device="cpu", skip_missing=False)
    assert sum(encoded) == 5 * 5
    encoded.clear()
    monkeypatch.setattr("mesm_core.extraction.settings.VERSION", 99)
    extract()
    assert sum(encoded) == 5 * 5


def test_missing_backbones_are_asked_for_in_a_terminal_and_refused_elsewhere(mesm, mine: Path, monkeypatch) -> None:
    Path("mine.toml").write_text(MINE.replace('videos = "videos"\nbackbones = ["pixels"]\n', ""))
    given = Given(videos=Path("videos"))
    settings, _, _ = new_settings(None, Path("mine.toml"), [], given, None)
    assert settings.dataset.backbones == ()
    run(mesm, "count-tokens", "--config", "mine.toml")
    message = refused(mesm, "train", "--config", "mine.toml", "--videos", "videos")
    assert "dataset.backbones" in message
    assert "clip-b32, slowfast-r50" in message
    monkeypatch.setattr(own_videos, "ask_backbones", lambda: ["pixels"])
    settings, paths, given = new_settings(None, Path("mine.toml"), [], given, None)
    assert (settings.dataset.videos, settings.dataset.backbones) == (str(mine / "videos"), ("pixels",))
    assert given.backbones == ["pixels"]
    assert paths.features[0].resolve() == mine / FEATURES


def test_an_unreadable_video_is_refused_or_skipped(mine: Path, capsys) -> None:
    Path("videos/v0002.avi").write_bytes(b"no video")
    with pytest.raises(DataError) as caught:
        extract()
    message = str(caught.value)
    assert "1 of 4 videos have no features" in message
    assert "v0002.avi" in message
    assert "--skip-missing" in message
    extract(skip_missing=True)
    assert "v0002.avi" in capsys.readouterr().err
    config = load_config(file=Path("mine.toml"))
    assert build_features(config, data_paths(config, Path())).missing(["v0001.avi", "v0002.avi"]) == ["v0002.avi"]


def test_a_video_missing_from_the_folder_is_refused(mesm, mine: Path, encoded: list[int]) -> None:
    run(mesm, "count-tokens", "--config", "mine.toml")
    Path("videos/v0001.avi").unlink()
    with pytest.raises(DataError, match="1 of 4 videos that the annotations name are not in") as caught:
        extract()
    assert "v0001" in str(caught.value)
    assert encoded == []
    failed = mesm("prepare", "check", "--config", "mine.toml")
    assert (failed.code, "v0001" in failed.out) == (2, True)


def test_other_problems_are_reported_before_the_extraction(mesm, mine: Path, encoded: list[int]) -> None:
    run(mesm, "count-tokens", "--config", "mine.toml")
    Path("glove.txt").unlink()
    assert "glove.txt" in refused(mesm, "train", "--config", "mine.toml")
    assert encoded == []


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("dataset.features=mine.hdf5", ConfigError, "Leave out dataset.features"),
        ("dataset.clip_len=-1", ConfigError, "dataset.clip_len=2"),
        ("dataset.backbones=i3d", FeatureError, "i3d.hdf5"),
        ("dataset.backbones=clip-b16", FeatureError, "clip-b32"),
    ],
)
def test_conflicting_settings_are_refused(setting: str, error: type[Exception], message: str) -> None:
    given = ["dataset.videos=videos", "dataset.backbones=pixels", setting]
    config = load_config("jsonl", overrides=given)
    with pytest.raises(error) as caught:
        features_folder(config, data_paths(config, Path()))
    assert message in str(caught.value)


def test_explicit_settings_override_those_of_the_backbones() -> None:
    given = ["dataset.videos=videos", 'dataset.backbones=["clip-b32","slowfast-r50"]']
    config = load_config("jsonl", overrides=given)
    assert (config.model.video_dim, config.dataset.clip_len) == (2816, 2)
    assert config.dataset.features == ("features/2s/clip_image.hdf5", "features/2s/slowfast.hdf5")
    config = load_config("jsonl", overrides=[*given, "model.video_dim=9", "dataset.clip_len=1"])
    assert config.model.video_dim == 9
    assert config.dataset.features[0] == "features/1s/clip_image.hdf5"
