"""``mesm doctor`` and shell completion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mesm_cli import completion
from mesm_core.config.load import known_keys, preset_names
from mesm_core.text.cache import TextCache
from mesm_core.version import __version__
from tests.conftest import Trained


def test_doctor_in_an_empty_folder(mesm, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    result = mesm("doctor")
    assert (result.code, result.err) == (0, "")
    for expected in (f"mesm {__version__}", "cpu", "OMP_NUM_THREADS=3", "does not exist yet", "qvhighlights"):
        assert expected in result.out
    assert "mesm count-tokens --dataset tacos" in result.out
    assert "mesm prepare npy2hdf5 FOLDER data/TACoS/c3d.hdf5" in result.out
    assert not list(tmp_path.iterdir())
    about = json.loads(mesm("doctor", "--json").out)
    assert {item["state"] for item in about["data"]} == {"missing"}
    assert all(item["how"] for item in about["data"])
    assert {item["dataset"] for item in about["data"]} == set(preset_names())
    assert about["versions"]["torch"]
    assert about["devices"][0]["name"] == "cpu"


def test_doctor_finds_existing_files(mesm, trained: Trained, tmp_path: Path, monkeypatch) -> None:
    root = shutil.copytree(trained.root, tmp_path / "data")
    shutil.copy(trained.paths.text, root / "glove.6B.300d.txt")
    (root / "TACoS" / "annotations" / "val.json").write_text("{")
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    TextCache(tmp_path / "cache" / "text.sqlite")
    about = json.loads(mesm("doctor", "--data-dir", root, "--json").out)
    states = {item["what"]: item["state"] for item in about["data"] if item["dataset"] == "tacos"}
    assert states == {"annotations train": "ok", "annotations val": "damaged", "features": "ok", "GloVe": "ok",
                      "count file": "ok"}  # fmt: skip
    assert about["text_cache"]["sentences"] == 0
    assert about["feature_cache"]["entries"] == about["feature_cache"]["bytes"] == 0
    (root / "TACoS" / "c3d.hdf5").write_bytes(b"damaged")
    result = mesm("doctor", "--data-dir", root)
    assert result.code == 0
    assert "c3d.hdf5 is damaged" in result.out


@pytest.mark.parametrize("content", [b"not a database at all", b""])
def test_doctor_with_a_damaged_cache(mesm, tmp_path: Path, monkeypatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESM_CACHE", str(tmp_path))
    (tmp_path / "text.sqlite").write_bytes(content)
    result = mesm("doctor")
    assert result.code == 0
    assert "delete it" in result.out
    assert (tmp_path / "text.sqlite").read_bytes() == content


def test_completion_suggests_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Trained) -> None:
    assert completion.presets("charades-c") == ["charades-cd", "charades-cg"]
    assert completion.precisions("") == ["fp32", "tf32", "bf16"]
    assert completion.settings("train.lr") == ["train.lr=", "train.lr_drop="]
    assert len(completion.settings("")) == len(known_keys())
    monkeypatch.chdir(tmp_path)
    assert completion.runs("") == []
    shutil.copytree(trained.run, tmp_path / "runs" / "tacos-a")
    (tmp_path / "ruins").mkdir()
    assert completion.runs("ru") == ["runs/tacos-a"]
    assert completion.checkpoints("runs/t") == ["runs/tacos-a/best.pt", "runs/tacos-a/last.pt"]
    assert completion.checkpoints("runs/tacos-a/conf") == ["runs/tacos-a/config.json"]
    assert completion.runs("rui") == ["ruins/"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --dataset qv", "qvhighlights"),
        ("bench --precision t", "tf32"),
        ("train --set model.he", "model.heads="),
        ("runs show runs/", "runs/tacos-a"),
        ("train --resume runs/", "runs/tacos-a"),
        ("eval runs/", "runs/tacos-a/best.pt"),
        ("predict runs/", "runs/tacos-a/best.pt"),
    ],
)
def test_completion_does_not_import_torch(tmp_path: Path, trained: Trained, words: str, expected: str) -> None:
    shutil.copytree(trained.run, tmp_path / "runs" / "tacos-a")
    typed = words.split()
    code = (
        "import sys\nfrom mesm_cli.app import app\n"
        "try:\n    app(prog_name='mesm')\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    environment = {"_MESM_COMPLETE": "complete_bash", "COMP_WORDS": f"mesm {words}", "COMP_CWORD": str(len(typed))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "AssertionError" not in done.stderr
    assert expected in done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("predict",), "Answer each query on its own"),
        (("count-tokens",), "start and end tokens"),
        (("prepare", "npy2hdf5"), "differ by more frames than this"),
        (("prepare", "glove"), "do not need this command"),
    ],
)
def test_help_says_what_an_option_is_for(mesm, words: tuple[str, ...], expected: str) -> None:
    shown = " ".join(mesm(*words, "--help").out.replace("│", " ").split())
    assert expected in shown
