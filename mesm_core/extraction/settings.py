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
    """``clip_len``: seconds a row; ``interpolation``: of the scaling; ``dtype``: float16 or float32 of what is kept;
    ``precision``: of the networks' numbers."""

    clip_len: Fraction
    interpolation: Interpolation = "bilinear"
    dtype: str = "float16"
    precision: str = "fp32"

    def described(self, backbone: Named) -> dict[str, Any]:
        """Return the settings and the backbone as JSON-able values; they are kept as attributes of the features."""
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
        """Return (rows, width) features as they are kept, in ``dtype``.

        Raises:
            FeatureError: they hold NaN or infinity, or values that ``dtype`` cannot hold.
        """
        if not np.isfinite(features).all():
            raise FeatureError(
                "its features hold NaN or infinity.", hint="Try --precision fp32, and check the weights."
            )
        with np.errstate(over="ignore"):
            kept = features.astype(self.dtype)
        if not np.isfinite(kept).all():
            raise FeatureError(
                f"its features go up to {np.abs(features).max():.3g}, beyond {self.dtype}.", hint="Use --dtype float32."
            )
        return kept

    def key(self, backbone: Named, content: str) -> str:
        """Return a name for the features of a video with the content hash ``content``: same name, same features."""
        exact = self.described(backbone) | {"clip_len": str(self.clip_len), "content": content}
        return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class About:
    """What is kept with a video's features, beside the settings.

    ``duration``: seconds; ``source``: file name; ``source_hash``: of the file's content; ``frames``: that decoded;
    ``skipped_packets``: damaged ones.
    """

    duration: float
    source: str
    source_hash: str
    frames: int
    skipped_packets: int

    def as_json(self) -> dict[str, Any]:
        """Return the same as JSON-able values."""
        return asdict(self)
