"""An extraction that is killed or interrupted at random moments keeps its finished videos and can be resumed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.extraction.made import content, make_videos, run, same

ROOT = Path(__file__).resolve().parents[2]
SLOWLY = ["--clip-len", "1/25", "--decoders", "1"]
"""One row per frame and one thread, so that the signal arrives long before the last video is done."""


def signalled(folder: Path, cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run commands in separate processes, and send each a signal."""
    spec, results = folder / "spec.json", folder / "results.json"
    spec.write_text(json.dumps(cases))
    command = [sys.executable, "-m", "tests.extraction.signalled", str(spec), str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(results.read_text())
    return outcomes


def case(videos: Path, out: Path, number: int | None, seconds: float, *words: str) -> dict[str, Any]:
    line = ["extract", str(videos), str(out), "--backbone", "pixels", "--clip-len", "1/2", "--device", "cpu"]
    return {"words": [*line, *words], "out": str(out), "signal": number, "seconds": seconds}


def killed_and_resumed(videos: Path, out: Path, kills: int, longest: float, *words: str) -> list[dict[str, Any]]:
    """Return commands that are killed, each up to ``longest`` seconds after its first video, and one that finishes."""
    moments = random.Random(kills)
    ends = [case(videos, out, signal.SIGKILL, moments.uniform(0, longest), "--resume", *words) for _ in range(kills)]
    return [*ends, case(videos, out, None, 0, "--resume", "--json", *words)]


@dataclass(frozen=True)
class Ended:
    """The results of the runs of one worker."""

    folder: Path
    kills: list[dict[str, Any]]
    asked: dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("killed")
    videos = make_videos(folder / "videos", 40, frames=15)
    kills = killed_and_resumed(videos, folder / "out", 2, 0.01, *SLOWLY)
    asked = [signal.SIGINT, signal.SIGTERM]
    whole = case(videos, folder / "whole", None, 0, *SLOWLY)
    outcomes = signalled(
        folder, [whole, *kills, *(case(videos, folder / f"out{n}", n, 0, *SLOWLY) for n in map(int, asked))]
    )
    return Ended(folder, outcomes[1:4], dict(zip(asked, outcomes[4:], strict=True)))


def test_kills_lose_no_finished_videos(ended: Ended) -> None:
    out = ended.folder / "out"
    assert [run["code"] for run in ended.kills] == [-signal.SIGKILL, -signal.SIGKILL, 0], ended.kills
    assert '"already_there"' in ended.kills[-1]["output"]
    assert '"already_there": 0' not in ended.kills[-1]["output"]
    assert same(content(out / "pixels.hdf5"), content(ended.folder / "whole" / "pixels.hdf5"))
    assert [path.name for path in out.iterdir()] == ["pixels.hdf5"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_parts_and_suggests_resume(ended: Ended, number: signal.Signals) -> None:
    run, parts = ended.asked[number], ended.folder / f"out{int(number)}" / "extract.parts"
    assert run["code"] == 128 + number
    assert "Traceback" not in run["output"]
    assert "--resume" in run["output"]
    assert list(parts.glob("*.npz"))
    assert not list(parts.glob("*.part"))


@pytest.mark.slow
def test_twenty_kills_of_a_thousand_videos_lose_no_finished_videos(tmp_path: Path) -> None:
    videos, out = make_videos(tmp_path / "videos", 1000), tmp_path / "out"
    outcomes = signalled(tmp_path, killed_and_resumed(videos, out, 20, 0.5))
    assert [run["code"] for run in outcomes] == [-signal.SIGKILL] * 20 + [0]
    run(videos, tmp_path / "whole")
    found = content(out / "pixels.hdf5")
    assert len(found) == 1000
    assert same(found, content(tmp_path / "whole" / "pixels.hdf5"))
