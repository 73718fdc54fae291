"""Reads a text encoder's state in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mesm_core.config.schema import Config
from mesm_core.errors import CheckpointError


def listed(state: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    """Return a list that a checkpoint holds of its text encoder.

    Raises:
        CheckpointError: it is missing or something else.
    """
    value = state.get(name)
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise damaged(name)
    return value


def vectors_of(config: Config, state: Mapping[str, Any], *, rows: int) -> np.ndarray:
    """Return the (rows, text_dim) float32 word vectors that a checkpoint holds.

    Raises:
        CheckpointError: they are missing or of another shape.
    """
    vectors = state.get("vectors")
    if not isinstance(vectors, torch.Tensor) or vectors.shape != (rows, config.model.text_dim):
        raise damaged("vectors")
    return vectors.float().numpy()


def damaged(name: str) -> CheckpointError:
    """Return what to tell of a part of the state that is missing or does not fit."""
    return CheckpointError(
        f"The checkpoint is damaged: the '{name}' of its text encoder are missing, or not what its settings say.",
        hint="Copy the file again, or use another.",
    )
