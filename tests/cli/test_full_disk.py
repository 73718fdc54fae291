"""Commands that write to a full disk print one message, exit with code 2 and leave no partial files."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mesm_core.text.clip import ClipTextTransformer
from tests.conftest import SMALL, Trained
from tests.extraction.made import make_videos
from tests.tiny_clip import write_clip
from tests.video.made import aged, film

K = 1024
SIZE = 4096 * K
# name: rooms to try in bytes, and the file that the message names
CASES = {
    "npy2hdf5": ([0, 8 * K], "out.hdf5"),
    "npy2hdf5-gzip": ([0, 4 * K, 16 * K], "out.hdf5"),
    "hdf52npy": ([0, 30 * K], ".npy"),
    "export": ([0, 8 * K, 80 * K], "exported"),
    "export-official": ([0, 8 * K, 80 * K], "new/"),
    "predict": ([0, 8 * K], "answers.jsonl"),
    "predict-plot": ([60 * K], "page.html"),
    "eval": ([0, 8 * K], "answers"),
    "eval-report": ([28 * K], "report.html"),
    "count-tokens": ([0, 4 * K], "_tokenized_count.txt"),
    "convert": ([0], "val.jsonl"),
    "glove": ([0, 4 * K], "words.h5"),
    "clip-text": ([0, 8 * K], "text.safetensors"),
    "train": ([0, 60 * K, 260 * K], "tacos-small"),
    "extract": ([0], "extract.parts/"),
    "locate": ([0], "moments"),
    "locate-page": ([0], "page.html"),
    "merge": ([0, 8 * K], "out.hdf5"),
    "demo": ([200 * K, 1200 * K], "mesm-demo"),
}
NAMED = [(name, room) for name, (rooms, _) in CASES.items() for room in rooms]


def hashes(*folders: Path) -> dict[str, str]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def commands(trained: Trained, folder: Path) -> dict[str, list[object]]:
    clip = folder / "clip.pth"
    torch.save(ClipTextTransformer(vocabulary=90, context=77, width=16, layers=1, heads=2).state_dict(), clip)
    queries = folder / "queries.jsonl"
    lines = [{"query": "He cuts.", "vid": f"test-00{n % 3}", "qid": n} for n in range(60)]
    queries.write_text("".join(json.dumps(line) + "\n" for line in lines))
    npy, features, best = trained.root / "npy", trained.paths.features[0], trained.best
    data = ["--dataset", "tacos", "--data-dir", trained.root]
    small = [word for setting in (*SMALL, "train.epochs=3") for word in ("--set", setting)]
    asked = ["predict", best, "--queries", queries, "--output", "answers.jsonl"]
    videos = make_videos(folder / "videos", 2)
    clip_model = aged(write_clip(folder / "ViT-B-32.pt"))
    locate = ["locate", film(folder / "film.mp4"), "He cuts.", "--weights", f"clip-b32={clip_model}"]
    return {
        "locate": [*locate, "--cut", "moments"],
        "locate-page": [*locate, "--page", "page.html"],
        "extract": ["extract", videos, "new", "--backbone", "pixels", "--device", "cpu"],
        "merge": ["prepare", "merge", features, "new/out.hdf5"],
        "npy2hdf5": ["prepare", "npy2hdf5", npy, "new/out.hdf5"],
        "npy2hdf5-gzip": ["prepare", "npy2hdf5", npy, "new/out.hdf5", "--compression", "gzip"],
        "hdf52npy": ["prepare", "hdf52npy", features, "new"],
        "export": ["export", best, "exported"],
        "export-official": ["export", best, "new/model.ckpt", "--official"],
        "predict": asked,
        "predict-plot": [*asked, "--plot", "page.html"],
        "eval": ["eval", best, "--output", "new/answers.jsonl"],
        "eval-report": ["eval", best, "--output", "answers.jsonl", "--report", "report.html"],
        "count-tokens": ["count-tokens", *data, "--out", "new"],
        "convert": ["prepare", "convert", "val.jsonl", *data, "--split", "val"],
        "glove": ["prepare", "glove", trained.paths.text, "words.h5", *data, "--set", "model.text_dim=8"],
        "clip-text": ["prepare", "clip-text", clip, "text.safetensors", "--heads", "2"],
        "train": ["train", *data, "--glove", trained.paths.text, "--runs-dir", "runs", "--name", "small", *small],
        "demo": ["demo", "--device", "cpu"],
    }


@pytest.fixture(scope="module")
def ended(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run all cases on a disk in memory that only they can see."""
    folder = tmp_path_factory.mktemp("small")
    disk, spec, results = folder / "disk", folder / "spec.json", folder / "results.json"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={SIZE} none "$0"'
    allowed = ["unshare", "-m", "sh", "-c", mount, str(disk)]
    if shutil.which("unshare") is None or subprocess.run(allowed, capture_output=True, check=False).returncode:
        pytest.skip("a disk of our own cannot be mounted here")
    words = commands(trained, folder)
    cases = [{"name": f"{n} {room}", "words": list(map(str, words[n])), "room": room} for n, room in NAMED]
    spec.write_text(json.dumps(cases))
    before = hashes(trained.root, trained.run, folder)
    worker = [sys.executable, "-m", "tests.cli.on_small_disk", str(disk), str(spec), str(results)]
    command = ["unshare", "-m", "sh", "-c", f'{mount} && shift 0 && exec "$@"', str(disk), *worker]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    output: dict[str, Any] = json.loads(results.read_text())
    results.unlink()
    assert hashes(trained.root, trained.run, folder) == before
    return output


@pytest.mark.parametrize(("name", "room"), NAMED, ids=lambda value: str(value))
def test_a_full_disk_is_reported_and_leaves_no_partial_file(ended: dict[str, Any], name: str, room: int) -> None:
    result = ended[f"{name} {room}"]
    assert result["code"] == 2, result["output"]
    assert "Traceback" not in result["output"]
    assert "fault in mesm" not in result["output"]
    error = result["output"].partition("Error:")[2]
    assert CASES[name][1] in error
    assert " free in " in error
    assert not result["left"], error
