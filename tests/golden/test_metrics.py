"""Published figures of real systems on QVHighlights val come out to the second decimal: one system always."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GOLDEN


def test_published_figures_of_one_system(mesm) -> None:
    folder = GOLDEN / "metrics"
    assert_equals_published(mesm, folder, "cg_detr", folder / "highlight_val_release.jsonl.gz")


@pytest.mark.parametrize("system", ["cg_detr", "qd_detr", "moment_detr"])
def test_published_figures(mesm, shared: Path, system: str) -> None:
    truth = shared / "data" / "qvhighlights" / "annotations" / "highlight_val_release.jsonl"
    assert_equals_published(mesm, shared / "golden" / "metrics", system, truth)


def assert_equals_published(mesm, folder: Path, system: str, truth: Path) -> None:
    result = mesm("score", folder / f"{system}_val_preds.jsonl.gz", truth, "--json")
    assert result.code == 0, result.err
    ours = flat(json.loads(result.out))
    published = flat(json.loads((folder / f"{system}_val_metrics.json").read_text()))
    assert len(published) > 70
    assert {key: ours[key] for key in published} == published


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out = {}
    for key, value in tree.items():
        out |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return out
