"""Predictions and what is true, as records and files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

TRUTH = [
    {"qid": 1, "vid": "v", "duration": 20, "query": "a", "relevant_windows": [[0, 10]]},
    {"qid": 2, "vid": "v", "duration": 20, "query": "b", "relevant_windows": [[4, 8], [12, 20]]},
    {"qid": 3, "vid": "w", "duration": 60, "query": "c", "relevant_windows": [[10, 60]]},
]


GOOD = [
    {"qid": 1, "pred_relevant_windows": [[0, 10, 0.9], [0, 9, 0.5]]},
    {"qid": 2, "pred_relevant_windows": [[12, 20, 0.9], [4, 8, 0.8]]},
    {"qid": 3, "pred_relevant_windows": [[10, 60, 0.9]]},
]


def write(path: Path, records: list[object]) -> Path:
    """Write records, or lines as they are, as JSON lines."""
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path
