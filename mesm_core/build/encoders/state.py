"""Reading of a text encoder's state from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mesm_core.config.schema import Config
from mesm_core.errors import CheckpointError


def listed(state: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    """Return a list in the state of a text encoder.

    Raises:
        CheckpointError: the list is missing, or has items of another type.
    """
    value = state.get(name)
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise damaged(name)
    return value


def vectors_of(config: Config, state: Mapping[str, Any], *, rows: int) -> np.ndarray:
    """Return the (rows, text_dim) float32 word vectors in the state of a text encoder.

    Raises:
        CheckpointError: the vectors are missing or have another shape.
    """
    vectors = state.get("vectors")
    if not isinstance(vectors, torch.Tensor) or vectors.shape != (rows, config.model.text_dim):
        raise damaged("vectors")
    return vectors.float().numpy()


def damaged(name: str) -> CheckpointError:
    """Return the error for a part of the state that is missing or does not fit."""
    return CheckpointError(
        f"The checkpoint is damaged: the '{name}' of its text encoder are missing or do not match its settings.",
        hint="Copy the file again, or use another.",
    )
