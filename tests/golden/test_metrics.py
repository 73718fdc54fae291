"""Three real systems' published figures on QVHighlights val come out to the second decimal."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesm_core.metrics.report import moment_tables

THRESHOLDS = [round(0.3 + 0.05 * step, 2) for step in range(14)]


@pytest.mark.parametrize("system", ["cg_detr", "qd_detr", "moment_detr"])
def test_published_figures(shared: Path, system: str) -> None:
    truth_file = shared / "data" / "qvhighlights" / "annotations" / "highlight_val_release.jsonl"
    truth = {d["qid"]: np.array(d["relevant_windows"]) for d in map(json.loads, truth_file.read_text().splitlines())}
    with gzip.open(shared / "golden" / "metrics" / f"{system}_val_preds.jsonl.gz", "rt") as file:
        predicted = {d["qid"]: np.array(d["pred_relevant_windows"]) for d in map(json.loads, file)}
    tables = moment_tables([predicted[qid] for qid in truth], list(truth.values()), thresholds=THRESHOLDS)
    published = json.loads((shared / "golden" / "metrics" / f"{system}_val_metrics.json").read_text())
    ours, theirs = flat(tables), flat({k: v for k, v in published.items() if not k.startswith("HL")})
    moments = {key: value for key, value in theirs.items() if "HL-" not in key}
    assert len(moments) > 50
    assert {key: ours[key] for key in moments} == moments


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out = {}
    for key, value in tree.items():
        out |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return out
