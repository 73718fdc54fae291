"""Settings that are derived from a folder of videos and its backbones. Does not import torch."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from mesm_core.config.backbones import BACKBONES

CLIP_SECONDS = 2.0
"""Seconds per row if ``dataset.clip_len`` is not positive; the default of ``mesm extract``."""
FOLDER = "features"


def derived_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings derived from ``dataset.videos`` and ``dataset.backbones``; empty without them.

    Features are stored in the annotations' folder, below ``features``, with one folder per length of rows, so that runs
    with different lengths do not replace each other's features.

    >>> mine = {"annotations": ".", "videos": "/my/videos", "backbones": ["clip-b32", "pixels"], "clip_len": -1}
    >>> derived_settings({"dataset": mine})["dataset"]["features"]
    ['features/2s/clip_image.hdf5', 'features/2s/pixels.hdf5']
    >>> derived_settings({"dataset": mine})["model"]
    {'video_dim': 768}
    """
    dataset = settings.get("dataset")
    if not isinstance(dataset, Mapping) or not dataset.get("videos"):
        return {}
    given, annotations = dataset.get("backbones") or (), dataset.get("annotations", ".")
    names = [given] if isinstance(given, str) else list(given)
    clip_len = dataset.get("clip_len", -1)
    if not isinstance(clip_len, int | float) or not isinstance(annotations, str):
        return {}  # the schema reports the error
    seconds = clip_len if clip_len > 0 else CLIP_SECONDS
    found: dict[str, Any] = {"dataset": {"clip_len": seconds}}
    if names and all(isinstance(name, str) and name in BACKBONES for name in names):
        entries = [BACKBONES[name] for name in names]
        folder = posixpath.normpath(posixpath.join(annotations, FOLDER, f"{seconds:g}s"))
        widths = [entry.width for entry in entries]
        files = [posixpath.join(folder, entry.file) for entry in entries]
        found["dataset"] |= {"features": files, "feature_dims": widths}
        found["model"] = {"video_dim": sum(widths)}
    return found
