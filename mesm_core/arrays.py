"""Array functions: normalisation, padding and masks. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EPS = 1e-5
"""Vectors shorter than this are divided by it instead of by their length."""


def normalise(vectors: np.ndarray, *, eps: float = EPS) -> np.ndarray:
    """Normalise (..., D) vectors to unit length over the last axis; those shorter than ``eps`` are divided by ``eps``.

    >>> normalise(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: np.ndarray = vectors / np.maximum(length, eps)
    return scaled


def pad(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Stack arrays, zero-padded on their first axis; return them and a mask that is True at valid positions.

    >>> pad([np.array([1, 2]), np.array([3])])[0].tolist()
    [[1, 2], [3, 0]]
    """
    longest = max(len(array) for array in arrays)
    out = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    mask = np.zeros((len(arrays), longest), np.bool_)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
        mask[row, : len(array)] = True
    return out, mask
