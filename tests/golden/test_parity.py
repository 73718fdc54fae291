"""Agreement with the published implementation's worked examples, at the tolerances of golden/README.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.parity.fixture import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, compare

MODELS = [
    "charades_clip",
    "charades_glove_pkl",
    "charades_no_recfw",
    "charades_no_recss",
    "qvhighlights_clip",
    "tacos_glove",
    "tacos_txt_pos",
]


@pytest.mark.parametrize("name", MODELS)
def test_worked_example(shared: Path, name: str) -> None:
    errors = compare(shared / "golden" / "model" / f"{name}.npz")
    assert errors.outputs <= OUTPUT_TOLERANCE
    assert errors.losses <= OUTPUT_TOLERANCE
    assert errors.gradients <= GRADIENT_TOLERANCE
    assert errors.matching


def test_command_tells_agreement_from_difference(shared: Path, tmp_path: Path) -> None:
    with np.load(shared / "golden" / "model" / "charades_no_recss.npz") as arrays:
        content = {name: arrays[name] for name in arrays.files}
    np.savez(tmp_path / "same.npz", **content)
    command = [sys.executable, "-m", "tests.parity", str(tmp_path)]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.returncode == 0
    content["out/pred_spans"] = content["out/pred_spans"] + np.float32(1e-3)
    np.savez(tmp_path / "other.npz", **content)
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    lines = {line.split()[0]: line for line in bad.stdout.splitlines()}
    assert lines["same"].endswith("ok")
    assert lines["other"].endswith("OVER")
