"""The interface of backbones: sampling a video, and encoding batches of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np

Precision = Literal["fp32", "fp16", "bf16"]
"""Numbers that a network computes with."""
SIDE = 224
"""Side in pixels of the pictures that backbones see."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Information about a video for samplers: the frame rate in its header, or None if the header has none."""

    frame_rate: float | None


class Sampler(Protocol):
    """Collects a video's pictures into the samples of its rows; one sampler a video."""

    def push(self, picture: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next picture (S, S, 3) uint8 RGB, and yield the samples that it completes."""
        ...

    def finish(self, duration: float) -> Iterator[np.ndarray]:
        """Yield the remaining samples at the end of the video; ``duration`` in seconds."""
        ...


class Named(Protocol):
    """The name and weights that identify the features of a backbone."""

    @property
    def name(self) -> str:
        """Name in the registry."""
        ...

    @property
    def weights_hash(self) -> str:
        """Hash of its weights."""
        ...


class Backbone(Protocol):
    """A frozen network, or a descriptor, that turns samples into features.

    ``name``: in the registry; ``width``: of the features; ``weights_hash``: of the weights, which distinguishes
    features extracted with different weights.
    """

    name: str
    width: int
    weights_hash: str

    def picture_seconds(self, clip_len: Fraction) -> Fraction:
        """Return the seconds of video per picture given to the sampler."""
        ...

    def sampler(self, clip_len: Fraction, video: VideoInfo) -> Sampler:
        """Return a sampler for a video with rows of ``clip_len`` seconds.

        Raises:
            FeatureError: the backbone has no rows of that length.
        """
        ...

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return the features (B, width) float32, not normalised, of samples stacked on a first axis."""
        ...


class PictureSampler:
    """Sampler of backbones that encode one picture per row: each picture is a sample."""

    def push(self, picture: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the picture."""
        yield picture

    def finish(self, duration: float) -> Iterator[np.ndarray]:
        """Yield nothing: no sample is left."""
        yield from ()
