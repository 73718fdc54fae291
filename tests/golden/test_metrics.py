"""Three real systems' published figures on QVHighlights val come out to the second decimal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("system", ["cg_detr", "qd_detr", "moment_detr"])
def test_published_figures(mesm, shared: Path, system: str) -> None:
    folder = shared / "golden" / "metrics"
    truth = shared / "data" / "qvhighlights" / "annotations" / "highlight_val_release.jsonl"
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
