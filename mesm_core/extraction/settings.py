"""What decides the features of a video, and where features of the same settings are found again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from mesm_core.backbones.protocol import Backbone
from mesm_core.video.scale import Interpolation

VERSION = 1
"""Raised whenever the same video and settings would give other features."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``clip_len``: seconds a row; ``interpolation``: of the scaling; ``dtype``: float16 or float32 of what is kept."""

    clip_len: Fraction
    interpolation: Interpolation = "bilinear"
    dtype: str = "float16"

    def described(self, backbone: Backbone) -> dict[str, Any]:
        """Return the settings and the backbone as JSON-able values; they are kept as attributes of the features."""
        return {
            "backbone": backbone.name,
            "weights": backbone.weights_hash,
            "clip_len": float(self.clip_len),
            "interpolation": self.interpolation,
            "dtype": self.dtype,
            "version": VERSION,
        }

    def key(self, backbone: Backbone, content: str) -> str:
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
