"""Helpers: folders of small videos, the content of feature files, and an extraction in one call."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mesm_core.extraction.job import Extraction, Report
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.sources import find_videos
from tests.video.made import constant, make_video

SETTINGS = Settings(Fraction(1, 2))
Content = dict[str, tuple[np.ndarray, dict[str, Any]]]


def make_videos(folder: Path, number: int, *, frames: int = 5) -> Path:
    """Make videos of different content, a few tiny frames each."""
    folder.mkdir(exist_ok=True)
    for index in range(number):
        levels = np.random.default_rng(index).integers(0, 255, (frames, 1, 1, 3), np.uint8)
        pictures = list(np.broadcast_to(levels, (frames, 16, 16, 3)))
        path = folder / f"v{index:04d}.avi"
        make_video(path, constant(25, frames), size=(16, 16), codec="mpeg4", pictures=pictures)
    return folder


def content(path: Path) -> Content:
    """Return the content of a feature file."""
    with h5py.File(path) as file:
        return {name: (node[()], dict(node.attrs)) for name, node in file.items()}


def same(one: Content, two: Content) -> bool:
    return one.keys() == two.keys() and all(
        np.array_equal(one[name][0], two[name][0]) and one[name][1] == two[name][1] for name in one
    )


def run(videos: Path, out: Path, *, names: tuple[str, ...] = ("pixels",), **options: Any) -> Report:
    settings = options.pop("settings", SETTINGS)
    job = Extraction(find_videos([videos]), out, names, settings=settings, **options)
    for _ in job.run():
        pass
    return job.report
