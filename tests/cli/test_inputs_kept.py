"""No command overwrites its inputs, even under another name; devices and links are written through."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mesm_core.text.clip import ClipTextTransformer
from tests.conftest import Trained


@pytest.fixture
def folder(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an input of every kind."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained.best, "best.pt")
    shutil.copytree(trained.paths.annotations, "annotations")
    shutil.copy(trained.paths.features[0], "features.hdf5")
    shutil.copy(trained.paths.text, "glove.txt")
    np.save("a.npy", np.ones((2, 3), np.float32))
    Path("list.txt").write_text("a.npy\n")
    torch.save(ClipTextTransformer(vocabulary=90, context=77, width=16, layers=1, heads=2).state_dict(), "clip.pth")
    queries = [{"query": "He cuts.", "vid": "test-000", "qid": n, "duration": 30.0} for n in range(3)]
    Path("queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    truth = [query | {"relevant_windows": [[0, 9]]} for query in queries]
    Path("truth.jsonl").write_text("".join(json.dumps(query) + "\n" for query in truth))
    answers = [query | {"pred_relevant_windows": [[0, 9, 0.5]]} for query in queries]
    Path("answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    os.link("glove.txt", "hard.h5")
    os.symlink("features.hdf5", "soft.jsonl")  # noqa: PTH211
    os.link("queries.jsonl", "plot.html")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


DATA = "--annotations annotations --features features.hdf5 --glove glove.txt"
REFUSED = [
    "prepare npy2hdf5 a.npy a.npy",
    "prepare npy2hdf5 a.npy ./annotations/../a.npy",
    "prepare npy2hdf5 list.txt list.txt",
    "prepare glove glove.txt hard.h5 --dataset tacos --annotations annotations",
    "prepare clip-text clip.pth clip.pth",
    "prepare convert annotations/val.json --dataset tacos --split val --annotations annotations",
    "prepare convert annotations/GloVe_tokenized_count.txt --dataset tacos --split val --annotations annotations",
    "prepare convert annotations/train.json --dataset tacos --split val --annotations annotations",
    "prepare convert truth.jsonl --dataset jsonl --split truth.jsonl",
    "score answers.jsonl truth.jsonl --per-query answers.jsonl",
    "score answers.jsonl truth.jsonl --per-query truth.jsonl",
    f"eval best.pt {DATA} -o best.pt",
    f"eval best.pt {DATA} --report best.pt",
    f"eval best.pt {DATA} -o soft.jsonl",
    f"eval best.pt {DATA} -o annotations/val.json",
    f"eval best.pt {DATA} -o annotations/train.json",
    f"eval best.pt {DATA} -o glove.txt",
    f"eval best.pt {DATA} -o new.html --report ./new.html",
    f"predict best.pt {DATA} --queries queries.jsonl -o queries.jsonl",
    f"predict best.pt {DATA} --queries queries.jsonl -o features.hdf5",
    f"predict best.pt {DATA} --queries queries.jsonl --plot plot.html",
    f"predict best.pt {DATA} --queries queries.jsonl -o new.html --plot new.html",
]


@pytest.mark.parametrize("words", REFUSED)
def test_inputs_are_not_overwritten(mesm, folder: Path, words: str) -> None:
    before = contents(folder)
    result = mesm(*words.split(), "--overwrite")
    assert result.code == 2, result.err
    shown = " ".join(result.err.split())
    assert "one of the files this command reads" in shown or "would be the same file" in shown
    assert contents(folder) == before


def test_exports_and_runs_do_not_overwrite_their_inputs(mesm, trained: Trained, folder: Path) -> None:
    assert mesm("export", "best.pt", "exported").code == 0
    assert mesm("export", "best.pt", "model.ckpt", "--official").code == 0
    shutil.copytree(trained.run, "runs/tacos-default")
    data = ["--data-dir", trained.root, *DATA.split()]
    before = contents(folder)
    for words in (
        ["export", "exported", "./exported"],
        ["export", "model.ckpt", "model.ckpt", "--official"],
        ["export", "model.ckpt", "other.ckpt", "--official"],
        ["train", "--init", "runs/tacos-default/best.pt", *data],
        ["train", "--config", "runs/tacos-default/config.json", *data],
        ["runs", "show", "runs/tacos-default", "--html", "runs/tacos-default/run.json"],
    ):
        result = mesm(*words, "--overwrite")
        assert result.code == 2, (words, result.err)
        assert "one of the files this command reads" in " ".join(result.err.split())
        assert contents(folder) == before


def test_invalid_output_paths_leave_no_files(mesm, folder: Path) -> None:
    before = contents(folder)
    for out in ("a.npy/below.jsonl", "n" * 300 + ".jsonl", "/proc/nowhere/x.jsonl"):
        for words in (f"predict best.pt {DATA} --queries queries.jsonl -o", f"eval best.pt {DATA} -o"):
            result = mesm(*words.split(), out)
            assert (result.code, "could not be written" in " ".join(result.err.split())) == (2, True), result.err
    assert mesm("demo", "--out", "a.npy").code == 2
    assert mesm("demo", "--out", "new", "--device", "cuda:99").code == 2
    assert contents(folder) == before
    assert not Path("new").exists()


def test_answers_are_written_to_devices_and_pipes(mesm, folder: Path) -> None:
    os.mkfifo("pipe")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_text()))
    reader.start()
    asked = ["predict", "best.pt", *DATA.split(), "--queries", "queries.jsonl", "-o"]
    assert mesm(*asked, "pipe").code == 0
    reader.join()
    assert len(got[0].splitlines()) == 3
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    for words in (asked, ["eval", "best.pt", *DATA.split(), "-o"]):
        for more in ([], ["--overwrite"]):
            result = mesm(*words, "/dev/null", *more)
            assert result.code == 0, result.err
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert not Path("/dev/null.metrics.json").exists()
    os.symlink("far.jsonl", "link.jsonl")  # noqa: PTH211
    assert mesm(*asked, "link.jsonl").code == 0
    assert Path("link.jsonl").is_symlink()
    assert len(Path("far.jsonl").read_text().splitlines()) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("to", [">/dev/full", ">&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"])
def test_unwritable_standard_output_is_reported(to: str) -> None:
    command = f'"$0" -m mesm_cli.app config show --dataset tacos {to}'
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = ["sh", "-c", command, sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2, done.stderr
    if "2>" not in to:
        assert "Standard output could not be written" in done.stderr
        assert "fault in mesm" not in done.stderr
        assert "Exception ignored" not in done.stderr
