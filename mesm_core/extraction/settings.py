"""The settings that determine the features of a video, and the keys under which features are stored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from mesm_core.backbones.protocol import Named
from mesm_core.errors import FeatureError
from mesm_core.video.scale import Interpolation

VERSION = 1
"""Incremented whenever the same video and settings would give different features."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``clip_len``: seconds per row; ``interpolation``: of the scaling; ``dtype``: float16 or float32, of the stored
    features; ``precision``: of the networks' arithmetic."""

    clip_len: Fraction
    interpolation: Interpolation = "bilinear"
    dtype: str = "float16"
    precision: str = "fp32"

    def described(self, backbone: Named) -> dict[str, Any]:
        """Return the settings and the backbone as JSON-able values, which are stored as attributes of the features."""
        return {
            "backbone": backbone.name,
            "weights": backbone.weights_hash,
            "clip_len": float(self.clip_len),
            "interpolation": self.interpolation,
            "dtype": self.dtype,
            "precision": self.precision,
            "version": VERSION,
        }

    def stored(self, features: np.ndarray) -> np.ndarray:
        """Return (rows, width) features converted to ``dtype``.

        Raises:
            FeatureError: they have NaN or infinity, or values out of the range of ``dtype``.
        """
        if not np.isfinite(features).all():
            raise FeatureError(
                "its features have NaN or infinity.", hint="Try --precision fp32, and check the weights."
            )
        with np.errstate(over="ignore"):
            kept = features.astype(self.dtype)
        if not np.isfinite(kept).all():
            raise FeatureError(
                f"its features go up to {np.abs(features).max():.3g}, beyond the range of {self.dtype}.",
                hint="Use --dtype float32.",
            )
        return kept

    def key(self, backbone: Named, content: str) -> str:
        """Return the key of a video's features, given the hash of its content; equal keys mean equal features."""
        exact = self.described(backbone) | {"clip_len": str(self.clip_len), "content": content}
        return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class About:
    """Metadata that is stored with a video's features, in addition to the settings.

    ``duration``: in seconds; ``source``: file name; ``source_hash``: hash of the file's content; ``frames``: number of
    decoded frames; ``skipped_packets``: number of damaged packets.
    """

    duration: float
    source: str
    source_hash: str
    frames: int
    skipped_packets: int

    def as_json(self) -> dict[str, Any]:
        """Return the metadata as JSON-able values."""
        return asdict(self)
