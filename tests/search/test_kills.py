"""A build of an index that is killed at random moments leaves a sound index, and goes on to the same result."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mesm_core.search import Index
from tests.extraction.made import make_videos
from tests.search.made import content
from tests.tiny_clip import write_clip
from tests.video.made import aged

ROOT = Path(__file__).resolve().parents[2]


def case(out: Path, *words: object, number: int | None = None, seconds: float = 0.0) -> dict[str, Any]:
    return {"words": [*map(str, words)], "out": str(out), "signal": number, "seconds": seconds}


def ended(folder: Path, videos: int, kills: int, longest: float, *more: str) -> list[dict[str, Any]]:
    """Build one index without kills, and one that is killed and verified; return the results."""
    sources, weights = make_videos(folder / "videos", videos, frames=10), aged(write_clip(folder / "w.pt"))
    moments = random.Random(kills)
    options = ["--weights", f"clip-b32={weights}", "--clip-len", "1/25", "--segment", "0.1", "--decoders", "1"]
    options += ["--device", "cpu", *more]

    def build(name: str, *words: str, **signals: Any) -> dict[str, Any]:
        return case(folder / name, "index", "build", folder / name, sources, *options, *words, **signals)

    cases = [build("whole")]
    for _ in range(kills):
        cases.append(build("killed", number=signal.SIGKILL, seconds=moments.uniform(0, longest)))
        cases.append(case(folder / "killed", "index", "verify", folder / "killed", "--json"))
    cases += [build("killed", "--json"), case(folder / "killed", "index", "verify", folder / "killed", "--json")]
    spec, results = folder / "spec.json", folder / "results.json"
    spec.write_text(json.dumps(cases))
    command = [sys.executable, "-m", "tests.extraction.signalled", str(spec), str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(results.read_text())
    return found[1:]


def check(folder: Path, results: list[dict[str, Any]]) -> None:
    builds, verifications = results[::2], results[1::2]
    assert [each["code"] for each in builds] == [-signal.SIGKILL] * (len(builds) - 1) + [0], results
    assert [each["code"] for each in verifications] == [0] * len(builds), results
    assert all(json.loads(each["output"])["problems"] == [] for each in verifications)
    whole, killed = Index.open(folder / "whole"), Index.open(folder / "killed")
    assert content(killed) == content(whole)

    def plain(index: Index) -> list[dict[str, Any]]:
        return [video.as_json() | {"added": ""} for video in index.videos.values()]

    assert plain(killed) == plain(whole)
    for id_ in whole.videos:
        assert (killed.features(id_)[0] == whole.features(id_)[0]).all()


def test_kills_leave_a_sound_index_and_lose_no_finished_video(tmp_path: Path) -> None:
    results = ended(tmp_path, 12, 2, 0.05)
    check(tmp_path, results)
    report = json.loads(results[-2]["output"])
    assert report["already_there"] + report["added"] == 12
    assert report["frames"] < 120


@pytest.mark.slow
def test_twenty_kills_leave_a_sound_index(tmp_path: Path) -> None:
    check(tmp_path, ended(tmp_path, 400, 20, 0.6))


@pytest.mark.slow
def test_kills_leave_a_sound_index_in_milvus(tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    check(tmp_path, ended(tmp_path, 150, 5, 1.0, "--engine", "milvus"))
