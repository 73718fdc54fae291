"""``prepare check`` on the invented dataset, and feature files with something changed."""

from __future__ import annotations

import json
from pathlib import Path

import h5py

from tests.cli.small_run import FIXED
from tests.conftest import Trained


def check(mesm, trained: Trained, *more: object) -> dict[str, tuple[str, str]]:
    """Return the level and the message of every finding of ``prepare check``, by subject."""
    command = ["prepare", "check", "--dataset", "tacos", "--data-dir", trained.root, "--glove", trained.paths.text]
    result = mesm(*command, *FIXED, "--json", *more)
    findings = {item["subject"]: (item["level"], item["message"]) for item in json.loads(result.out)}
    failed = any(level == "error" for level, _ in findings.values())
    assert result.code == (2 if failed else 0)
    return findings


def altered(trained: Trained, path: Path, change) -> Path:
    """Write the features as ``change(vid, frames)`` gives them; without a video for which it gives None."""
    with h5py.File(trained.paths.features[0]) as source, h5py.File(path, "w") as target:
        for vid, node in source.items():
            frames = change(vid, node[()])
            if frames is not None:
                target[vid] = frames
    return path
