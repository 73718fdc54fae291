"""The ``mesm prepare`` commands, and the steps from the user's files to an answer."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mesm_core.data.readers import read_split
from mesm_core.text.clip import ClipTextTransformer
from tests.cli.commands.checks import altered, check
from tests.cli.small_run import FIXED
from tests.conftest import Trained


def test_a_glove_vocabulary_is_written(mesm, trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "vocabulary.h5"
    command = ["prepare", "glove", trained.paths.text, out, "--dataset", "tacos", "--data-dir", trained.root]
    result = mesm(*command, "--set", "model.text_dim=8", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["dim"] == 8
    assert mesm(*command).code == 2
    assert mesm("prepare", "glove", trained.paths.text, tmp_path / "a.pkl", "--dataset", "tacos").code == 2
    content = {"w2id": {"<PAD>": 0, "a": 1}, "id2vec": [np.zeros(2), np.ones(2)], "counter": Counter("a")}
    (tmp_path / "glove.pkl").write_bytes(pickle.dumps(content))
    assert mesm("prepare", "glove", tmp_path / "glove.pkl", tmp_path / "safe.h5").code == 0


def test_clip_text_weights_are_extracted(mesm, tmp_path: Path) -> None:
    model = ClipTextTransformer(vocabulary=49408, context=77, width=16, layers=2, heads=2)
    torch.save(model.state_dict(), tmp_path / "clip.pth")
    out = tmp_path / "text.safetensors"
    result = mesm("prepare", "clip-text", tmp_path / "clip.pth", out, "--heads", "2")
    assert result.code == 0, result.err
    assert "2 layers, width 16" in result.out
    assert mesm("prepare", "clip-text", tmp_path / "clip.pth", out).code == 2
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    refused = mesm("prepare", "clip-text", tmp_path / "other.pth", tmp_path / "b.safetensors")
    assert refused.code == 2
    assert "no CLIP text tower" in refused.err
    assert not (tmp_path / "b.safetensors").exists()


def test_convert_to_json_lines(mesm, trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "val.jsonl"
    result = mesm("prepare", "convert", out, "--dataset", "tacos", "--split", "val", "--data-dir", trained.root)
    assert result.code == 0, result.err
    ours = read_split("jsonl", Path(), str(out)).queries
    theirs = read_split("tacos", trained.paths.annotations, "val").queries
    assert [(q.vid, q.sentence, q.windows, q.qid) for q in ours] == [
        (q.vid, q.sentence, q.windows, q.qid) for q in theirs
    ]


def test_check_passes_on_correct_data(mesm, trained: Trained) -> None:
    findings = check(mesm, trained)
    assert {level for level, _ in findings.values()} == {"ok"}
    table = mesm(
        "prepare", "check", "--dataset", "tacos", "--data-dir", trained.root, "--glove", trained.paths.text, *FIXED
    )
    assert "feature width" in table.out


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("missing", "3 of 11 videos are missing: val-000"),
        ("narrow", "6, but model.video_dim is 12"),
        ("mixed", "different widths: 11, 12"),
        ("cube", "not (frames, dim)"),
        ("nan", "NaN or infinity"),
        ("pixels", "are these features, or pixels?"),
        ("frozen", "frames are all the same"),
        ("zeros", "of the frames are all zero"),
    ],
)
def test_check_finds_problems(mesm, trained: Trained, tmp_path: Path, what: str, expected: str) -> None:
    def change(vid: str, frames: np.ndarray) -> np.ndarray | None:
        return {
            "missing": lambda: None if vid.startswith("val") else frames,
            "narrow": lambda: frames[:, :6],
            "mixed": lambda: frames[:, :11] if vid == "val-001" else frames,
            "cube": lambda: frames[None] if vid == "val-001" else frames,
            "nan": lambda: np.where(np.arange(len(frames))[:, None] == 1, np.nan, frames),
            "pixels": lambda: frames.astype(np.float32) * 1e5,
            "frozen": lambda: np.repeat(frames[:1], len(frames), axis=0),
            "zeros": lambda: frames * (np.arange(len(frames)) % 2)[:, None],
        }[what]()

    features = altered(trained, tmp_path / "features.hdf5", change)
    command = ["prepare", "check", "--dataset", "tacos", "--data-dir", trained.root, "--glove", trained.paths.text]
    result = mesm(*command, *FIXED, "--features", features, "--json")
    assert any(expected in item["message"] for item in json.loads(result.out) if item["level"] != "ok"), result.out


def test_check_finds_a_wrong_clip_len_and_unrelated_files(mesm, trained: Trained, tmp_path: Path) -> None:
    wrong = check(mesm, trained, "--set", "dataset.clip_len=0.17")
    assert wrong["c3d.hdf5 rate"][0] == "error"
    assert "clip_len 2 would fit" in wrong["c3d.hdf5 rate"][1]
    longer = altered(trained, tmp_path / "slow.hdf5", lambda vid, frames: np.repeat(frames, 2, axis=0))
    both = ["--features", trained.paths.features[0], "--features", longer, "--set", "model.video_dim=24"]
    assert "differ in length by more than 3 frames" in str(check(mesm, trained, *both))
    order = ["--set", 'dataset.features=["slow.hdf5", "c3d.hdf5"]']
    assert "c3d then slow; the preset joins slow then c3d" in str(check(mesm, trained, *both, *order))
    swapped = ["--set", "dataset.feature_dims=[8, 16]", *both[:4], "--set", "model.video_dim=24"]
    assert "usually 8 + 16" in str(check(mesm, trained, *swapped))
    assert check(mesm, trained, "--features", tmp_path / "none.hdf5")["none.hdf5"][0] == "error"
    assert check(mesm, trained, "--set", "text.vocab_size=99")["text (glove)"][0] == "error"


def test_custom_data_from_files_to_an_answer(mesm, trained: Trained, tmp_path: Path, monkeypatch) -> None:
    """The README's walk-through: a folder of .npy and two .jsonl files become a checkpoint and a prediction."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        queries = read_split("tacos", trained.paths.annotations, split).queries
        records = (
            {"vid": q.vid, "duration": q.duration, "query": q.sentence, "relevant_windows": q.windows} for q in queries
        )
        Path(f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    glove, npy = trained.paths.text, trained.root / "npy"
    files = ["--set", "dataset.train=train.jsonl", "--set", "dataset.eval=val.jsonl", "--glove", glove]
    steps = [
        ["prepare", "npy2hdf5", npy, "data/features.hdf5", "--fps", "0.5"],
        ["count-tokens", "--dataset", "jsonl", *files[:4]],
        ["prepare", "check", "--dataset", "jsonl", *files, *FIXED],
        ["train", "--dataset", "jsonl", *files, *FIXED, "--set", "train.epochs=1"],
        ["eval", "runs/jsonl-default/best.pt"],
        ["predict", "runs/jsonl-default/best.pt", "--video", "test-000", "The man cuts a pan."],
    ]
    for step in steps:
        result = mesm(*step)
        assert result.code == 0, (step, result.err)
    assert "The man cuts a pan." in result.out

    best = "runs/jsonl-default/best.pt"
    assert Path("runs/jsonl-default/predictions/val.jsonl").is_file()
    assert Path("runs/jsonl-default/predictions/best-val.jsonl").is_file()
    bare = [json.loads(line) for line in Path("val.jsonl").read_text().splitlines()]
    Path("bare.jsonl").write_text("".join(json.dumps(r | {"relevant_windows": []}) + "\n" for r in bare))
    unscored = mesm("eval", best, "--split", "bare.jsonl", "--json")
    assert unscored.code == 0, unscored.err
    assert "brief" not in json.loads(unscored.out)
    assert len(Path(json.loads(unscored.out)["predictions"]).read_text().splitlines()) == len(bare)
    assert "there are no metrics" in mesm("eval", best, "--split", "bare.jsonl").out
    scored = mesm("eval", best, "--split", "bare.jsonl", "--truth", "val.jsonl", "--json")
    usual = mesm("eval", best, "--json")
    assert json.loads(scored.out)["brief"] == json.loads(usual.out)["brief"]
    suppressed = json.loads(mesm("eval", best, "--nms", "0.01", "--json").out)
    first = json.loads(Path(suppressed["predictions"]).read_text().splitlines()[0])["pred_relevant_windows"]
    assert len(first) < 4
    refused = mesm("train", "--dataset", "jsonl", *files[:2], "--set", "dataset.eval=bare.jsonl", *files[4:], *FIXED,
                   "--name", "other")  # fmt: skip
    assert refused.code == 2
    assert "cannot choose a checkpoint" in refused.err


def test_features_of_other_tools_are_converted(mesm, shared: Path, trained: Trained, tmp_path: Path) -> None:
    """CLIP features saved by other tools are converted, and a model of their width uses them."""
    media = {name: shared / "media" / f"{name}.npz" for name in ("vid", "txt")}
    for name, dtype in (("vid", "float32"), ("txt", "float16")):
        out = tmp_path / f"{name}.hdf5"
        assert mesm("prepare", "npy2hdf5", media[name], out, "--fps", "0.5").code == 0
        with h5py.File(out) as file:
            assert np.array_equal(file[name][()], np.load(media[name])["features"])
            assert file[name].dtype == dtype
    width = np.load(media["vid"])["features"].shape[1]
    assert width == 512
    narrow = mesm("predict", trained.best, "--features", tmp_path / "vid.hdf5", "--video", "vid", "a man")
    assert narrow.code == 2
    assert "are 512 wide, but model.video_dim is 12" in narrow.err
    wide = altered(trained, tmp_path / "wide.hdf5", lambda vid, frames: np.resize(frames, (len(frames), width)))
    words = ["--features", wide, "--runs-dir", tmp_path / "runs", "--set", "train.epochs=1"]
    done = mesm("train", "--dataset", "tacos", "--data-dir", trained.root, "--glove", trained.paths.text,
                *FIXED, *words, "--set", f"model.video_dim={width}")  # fmt: skip
    assert done.code == 0, done.err
    best = tmp_path / "runs" / "tacos-default" / "best.pt"
    answered = mesm("predict", best, "--features", tmp_path / "vid.hdf5", "--video", "vid", "a man", "--json",
                    "--nms", "-1")  # fmt: skip
    assert answered.code == 0, answered.err
    assert len(json.loads(answered.out)[0]["moments"]) == 4


def test_a_killed_conversion_is_finished_by_resume(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "npy").mkdir()
    for number in range(60):
        np.save(tmp_path / "npy" / f"v{number:02}.npy", rng.normal(size=(400, 512)).astype(np.float32))
    out = tmp_path / "out.hdf5"
    command = [sys.executable, "-m", "mesm_cli.app", "prepare", "npy2hdf5", str(tmp_path / "npy"), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = tmp_path / "out.hdf5.part"
    while process.poll() is None and not (work.exists() and work.stat().st_size > 5_000_000):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL) if process.poll() is None else None
    process.wait()
    done = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["videos"] + report["already_there"] == 60
    with h5py.File(out) as file:
        for number in range(60):
            assert np.array_equal(file[f"v{number:02}"][()], np.load(tmp_path / "npy" / f"v{number:02}.npy"))
