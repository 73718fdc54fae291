"""Keeps the number of torch's threads."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that run in this process leave the number of threads as it is."""
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
