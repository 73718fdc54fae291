"""The main commands: their output, and their errors for invalid input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mesm_core.version import __version__
from tests.cli.small_run import FIXED, train_words
from tests.conftest import Trained


def test_version_and_help(mesm) -> None:
    assert mesm("--version").out.strip() == f"mesm {__version__}"
    shown = mesm("--help").out
    for command in ("prepare", "count-tokens", "train", "eval", "predict", "config", "demo"):
        assert command in shown
    for command in ("train", "eval", "predict", "demo", "count-tokens"):
        assert mesm(command, "--help").code == 0


def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mesm_cli.app", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert __version__ in done.stdout


def test_config_show(mesm) -> None:
    shown = mesm("config", "show", "--dataset", "tacos", "--set", "train.lr=1e-3").out
    assert "train.lr = 0.001" in shown
    line = next(line for line in shown.splitlines() if line.startswith("train.lr "))
    assert line.endswith("# --set")
    assert "# preset tacos" in shown
    assert "# default" in shown
    values = json.loads(mesm("config", "show", "--dataset", "tacos", "--json").out)
    assert values["model"]["hidden_dim"] == 256


def test_config_validate(mesm, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("[train]\nepochs = 3\n")
    bad.write_text("[train]\nepoch = 3\n")
    assert mesm("config", "validate", good, "--dataset", "tacos").code == 0
    result = mesm("config", "validate", bad, "--dataset", "tacos")
    assert result.code == 2
    assert "Did you mean 'train.epochs'?" in result.err


def test_config_import(mesm, tmp_path: Path) -> None:
    flags = {"dataset_name": "charades", "tokenizer_type": "CLIP", "hidden_dim": 64, "v_feat_dim": 100}
    (tmp_path / "config.json").write_text(json.dumps(flags))
    (tmp_path / "mine.toml").write_text(mesm("config", "import", tmp_path / "config.json").out)
    assert mesm("config", "validate", tmp_path / "mine.toml").code == 0
    values = json.loads(mesm("config", "show", "--config", tmp_path / "mine.toml", "--json").out)
    assert (values["model"]["hidden_dim"], values["model"]["video_dim"], values["train"]["lr"]) == (64, 100, 2e-4)


def test_npy2hdf5(mesm, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3), np.float32))
    np.save(tmp_path / "b.npy", np.ones((4, 3), np.float32))
    out = tmp_path / "out.hdf5"
    result = mesm("prepare", "npy2hdf5", tmp_path / "*.npy", out, "--json")
    assert result.code == 0
    assert json.loads(result.out)["videos"] == 2
    again = mesm("prepare", "npy2hdf5", tmp_path, out)
    assert again.code == 2
    assert "--overwrite" in again.err
    np.save(tmp_path / "c.npy", np.full((2, 3), np.nan))
    partly = mesm("prepare", "npy2hdf5", tmp_path, out, "--overwrite")
    assert partly.code == 2
    assert "c.npy: it holds NaN" in partly.err
    with h5py.File(out) as file:
        assert sorted(file) == ["a", "b"]
    assert mesm("prepare", "npy2hdf5", tmp_path / "none*", tmp_path / "x.hdf5").code == 2
    assert not (tmp_path / "x.hdf5").exists()
    assert mesm("prepare", "npy2hdf5", "alone").code == 2


@pytest.mark.parametrize("words", [("count-tokens",), ("prepare", "count-tokens")])
def test_count_tokens(mesm, trained: Trained, tmp_path: Path, words: tuple[str, ...]) -> None:
    command = [*words, "--dataset", "tacos", "--data-dir", trained.root, "--out", tmp_path]
    result = mesm(*command, "--json")
    assert result.code == 0
    assert {Path(item["file"]).name for item in json.loads(result.out)} == {
        "GloVe_tokenized_count.txt",
        "CLIP_tokenized_count.txt",
    }
    assert "up to date" in mesm(*command).out
    changed = tmp_path / "GloVe_tokenized_count.txt"
    changed.write_text("mine 2 1\n")
    refused = mesm(*command)
    assert refused.code == 2
    assert changed.read_text() == "mine 2 1\n"
    assert mesm(*command, "--overwrite").code == 0
    assert changed.read_text() != "mine 2 1\n"


def test_train_eval_predict(mesm, trained: Trained, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = train_words(trained, "--runs-dir", runs, "--name", "mine", "--set", "train.epochs=1")
    trained_once = mesm(*command)
    assert trained_once.code == 0, trained_once.err
    best = runs / "tacos-mine" / "best.pt"
    assert best.is_file()
    assert "1/1" in trained_once.out
    again = mesm(*command)
    assert again.code == 2
    assert "--resume" in again.err
    more = mesm("train", "--resume", runs / "tacos-mine", "--set", "train.epochs=2", "--json")
    assert more.code == 0, more.err
    assert json.loads(more.out)["run"] == str(runs / "tacos-mine")
    assert "Resuming after epoch 1" in more.err

    scored = mesm("eval", best, "--split", "test", "--json")
    assert scored.code == 0, scored.err
    tables = json.loads(scored.out)
    assert "MR-full-mIoU" in tables["brief"]
    assert tables["split"] == "test"
    predictions = Path(tables["predictions"])
    assert len(predictions.read_text().splitlines()) == tables["queries"]
    assert json.loads(predictions.with_suffix(".metrics.json").read_text())["brief"] == tables["brief"]
    assert "MR-full-mIoU" in mesm("eval", best).out
    own = tmp_path / "own.jsonl"
    assert mesm("eval", best, "--output", own).code == 0
    assert mesm("eval", best, "--output", own).code == 2

    features = trained.paths.features[0]
    asked = mesm(
        "predict", best, "--features", features, "--video", "test-000", "The man cuts a pan.", "kettle", "--json"
    )
    answers = json.loads(asked.out)
    assert [answer["query"] for answer in answers] == ["The man cuts a pan.", "kettle"]
    assert answers[0]["moments"][0].keys() == {"start", "end", "score", "confidence"}
    drawn = mesm("predict", best, "--video", "test-000", "The [man] cuts", "--top", "2", "--independent").out
    assert "The [man] cuts" in drawn
    assert drawn.count("0:") >= 3
    assert "saliency" in drawn


def test_training_warns_of_a_wrong_clip_len(mesm, trained: Trained, tmp_path: Path) -> None:
    words = ["--runs-dir", tmp_path, "--set", "train.epochs=1", "--set", "dataset.max_frames=200"]
    wrong = mesm(*train_words(trained, *words, "--set", "dataset.clip_len=0.17"))
    assert wrong.code == 0, wrong.err
    assert "clip_len 2 would fit" in " ".join(wrong.err.split())
    right = mesm(*train_words(trained, *words, "--set", "dataset.clip_len=2", "--overwrite"))
    assert "would fit" not in right.err


def damaged(trained: Trained, tmp_path: Path, what: str) -> list[object]:
    """Return a training command with one invalid argument."""
    root = tmp_path / "data"
    shutil.copytree(trained.root, root)
    annotations, features = root / "TACoS" / "annotations", root / "TACoS" / "c3d.hdf5"
    words: list[object] = []
    if what == "features missing":
        features.unlink()
    elif what == "features cut":
        features.write_bytes(features.read_bytes()[:-3000])
    elif what == "video missing":
        with h5py.File(features, "a") as file:
            for number in range(8):
                del file[f"train-{number:03}"]
    elif what == "nan":
        with h5py.File(features, "a") as file:
            file["val-002"][0, 0] = np.nan
    elif what == "width":
        words = ["--set", "model.video_dim=99"]
    elif what == "annotation":
        (annotations / "train.json").write_text('{"v": {"timestamps": [[1, 2]],\n')
    elif what == "duration":
        video = {"timestamps": [[0, 1]], "sentences": ["a"], "fps": 1.0, "num_frames": 0}
        (annotations / "train.json").write_text(json.dumps({"v": video}))
    elif what == "vocabulary":
        words = ["--set", "text.vocab_size=999"]
    elif what == "counts":
        (annotations / "GloVe_tokenized_count.txt").unlink()
    elif what == "key":
        words = ["--set", "model.hiden_dim=4"]
    elif what == "dataset":
        words = ["--dataset", "tacoss"]
    elif what == "device":
        words = ["--device", "cuda:7"]
    elif what == "device name":
        words = ["--device", "gpu"]
    elif what == "config":
        words = ["--config", tmp_path / "none.toml"]
    return ["train", "--dataset", "tacos", "--data-dir", root, "--glove", root / trained.paths.text.name,
            *FIXED, "--runs-dir", tmp_path / "runs", *words]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("features missing", "No feature file at"),
        ("features cut", "truncated"),
        ("video missing", "8 of 8 videos have no features"),
        ("nan", "NaN or infinity"),
        ("width", "are 12 wide, but model.video_dim is 99"),
        ("annotation", "train.json, line 2"),
        ("duration", "duration is 0"),
        ("vocabulary", "fewer than text.vocab_size = 999"),
        ("counts", "mesm count-tokens"),
        ("key", "Did you mean 'model.hidden_dim'?"),
        ("dataset", "Did you mean 'tacos'?"),
        ("device", "cuda" if torch.cuda.is_available() else "No CUDA device"),
        ("device name", "Use auto, cpu, cuda or cuda:N"),
        ("config", "No config file"),
    ],
)
def test_bad_input_to_train(mesm, trained: Trained, tmp_path: Path, what: str, expected: str) -> None:
    result = mesm(*damaged(trained, tmp_path, what))
    assert result.code == 2
    assert expected in result.err
    assert "Traceback" not in result.err
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_bad_input_to_eval_and_predict(mesm, trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    torch.save({"x": 1}, other)
    best = trained.best
    cases = [
        (("eval", other), "not a mesm checkpoint"),
        (("eval", trained.run), "is a folder"),
        (("eval", best, "--split", "tst"), "Did you mean 'test'?"),
        (("eval", best, "--set", "model.heads=4"), "settings are fixed"),
        (("eval", best, "--features", tmp_path / "none.hdf5"), "No feature file"),
        (("predict", best, "--video", "tst-000", "a"), "Did you mean 'test-000'?"),
        (("predict", best, "--video", "test-000", ""), "query is empty"),
        (("predict", best, "--video", "test-000", "--duration", "0", "a"), "must be positive"),
        (("predict", best, "--video", "test-000"), "has no queries"),
    ]
    for words, expected in cases:
        result = mesm(*words)
        assert result.code == 2, words
        assert expected in result.err, result.err
        assert "Traceback" not in result.err
        assert words[0] != "predict" or "--skip-missing" not in result.err


def test_debug_shows_the_traceback(mesm) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mesm_cli.app", "config", "show", "--dataset", "x", "--debug"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_internal_errors_exit_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    from mesm_cli.errors import guard

    def broken() -> None:
        raise RuntimeError("boom")

    def interrupted() -> None:
        raise KeyboardInterrupt

    assert guard(broken) == 1
    assert "--debug" in capsys.readouterr().err
    assert guard(interrupted) == 130
