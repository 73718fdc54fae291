"""Checkpoints with something changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mesm_core.checkpoint import load_content
from tests.conftest import Trained

Change = Callable[[dict[str, Any]], object]
"""Changes a checkpoint's content in place."""


def changed(trained: Trained, path: Path, change: Change, name: str = "best.pt") -> Path:
    """Write a checkpoint of the trained run with its content changed."""
    content = load_content(trained.run / name)
    change(content)
    torch.save(content, path)
    return path


def setting(key: str, value: object) -> Change:
    """Return a change of ``a.b`` to a value."""

    def change(content: dict[str, Any]) -> None:
        *above, last = key.split(".")
        for part in above:
            content = content[part]
        content[last] = value

    return change
