"""The selected frames match those of FFmpeg's fps filter."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mesm_core.video.times import choose_rows

GOLDEN = Path(os.environ.get("MESM_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "video" / "golden"


def _tables() -> dict[str, Any]:
    path = GOLDEN / "frame_times.json"
    return json.loads(path.read_text()) if path.is_file() else {"synthetic": {}}


@pytest.mark.parametrize("name", ["vfr", "late", "ntsc", "cut", "short", "a25_mkv"])
def test_rows_of_synthetic_times_match_the_worked_examples(name: str) -> None:
    if not GOLDEN.is_dir():
        pytest.skip("the worked examples of video features are not here")
    case = _tables()["synthetic"][name]
    times = [Fraction(text) for text in case["time_s"]]
    for rate, expected in case["expected"].items():
        got = choose_rows(times, last_duration=Fraction(case["last_duration"]), clip_len=1 / Fraction(rate))
        assert got == expected, rate
