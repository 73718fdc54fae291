"""What runs leave: weights, figures and predictions, and their comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mesm_core.checkpoint import load_checkpoint
from mesm_core.training.directory import read_records


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    """Return the weights of a run's checkpoint."""
    return load_checkpoint(folder / name).model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of weights are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def figures(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run without its times."""
    timed = {"seconds", "queries_per_s"}
    return [{key: value for key, value in record.items() if key not in timed} for record in read_records(folder)]


def assert_same_results(ours: Path, theirs: Path) -> None:
    """Assert that two runs have the same weights, figures and predictions."""
    assert figures(ours) == figures(theirs)
    for name in ("best.pt", "last.pt"):
        assert same(weights(ours, name), weights(theirs, name)), name
    predictions = "predictions/val.jsonl"
    assert (ours / predictions).read_bytes() == (theirs / predictions).read_bytes()
