"""Attributes that record how features were extracted; `mesm extract` writes them, other tools may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import h5py
import numpy as np

ORIGIN = ("backbone", "weights", "clip_len", "interpolation")
"""Attributes that must agree between a model's training features and the features at inference."""
MADE_WITH = (*ORIGIN, "precision", "dtype", "version")
"""Attributes that must agree between all features of one file."""

Origin = Mapping[str, str | int | float]


def read_origin(node: h5py.Dataset, names: Sequence[str] = ORIGIN) -> dict[str, str | int | float]:
    """Return the attributes among ``names`` that a dataset has as text or numbers."""
    found: dict[str, str | int | float] = {}
    for name in names:
        try:
            value = node.attrs.get(name)
        except Exception:  # a damaged or unusual attribute is treated as absent
            continue
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode("utf-8", "backslashreplace")
        if isinstance(value, str | int | float):
            found[name] = value
    return found


def conflicts(ours: Origin, theirs: Origin) -> dict[str, tuple[str | int | float, str | int | float]]:
    """Return the attributes present in both with different values, as (ours, theirs).

    >>> conflicts({"backbone": "pixels", "clip_len": 2.0}, {"backbone": "clip-b32", "interpolation": "bicubic"})
    {'backbone': ('pixels', 'clip-b32')}
    """
    return {name: (ours[name], theirs[name]) for name in ours if name in theirs and ours[name] != theirs[name]}


def described(origin: Origin) -> str:
    """Return an origin in a few words.

    >>> described({"backbone": "clip-b32", "weights": "0123456789abcdef", "clip_len": 2.0})
    'clip-b32, weights 0123456789ab, clip_len 2'
    """
    parts = []
    for name, value in origin.items():
        text = f"{value:g}" if isinstance(value, float) else str(value)[:12] if name == "weights" else str(value)
        parts.append(text if name == "backbone" else f"{name} {text}")
    return ", ".join(parts) or "no recorded settings"
