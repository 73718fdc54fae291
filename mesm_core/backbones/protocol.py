"""What extraction asks of a backbone: how to cut a video into samples, and what features a batch of samples has."""

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
class VideoFacts:
    """What a sampler may need to know of a video: frames a second by the header, or None where it does not say."""

    frame_rate: float | None


class Sampler(Protocol):
    """Collects a video's pictures into the samples of its rows; one sampler a video."""

    def push(self, picture: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next picture (S, S, 3) uint8 RGB, and yield the samples that are complete by it."""
        ...

    def finish(self, duration: float) -> Iterator[np.ndarray]:
        """Yield the samples that are left at the video's end; ``duration`` in seconds."""
        ...


class Named(Protocol):
    """What tells a backbone's features apart from others'."""

    @property
    def name(self) -> str:
        """Name of its line in the registry."""
        ...

    @property
    def weights_hash(self) -> str:
        """Hash of its weights."""
        ...


class Backbone(Protocol):
    """A frozen network, or a descriptor, that turns samples into features.

    ``name``: of its line in the registry; ``width``: of its features; ``weights_hash``: of its weights, so that
    features of other weights can be distinguished.
    """

    name: str
    width: int
    weights_hash: str

    def picture_seconds(self, clip_len: Fraction) -> Fraction:
        """Return the seconds of video that each picture of the sampler stands for."""
        ...

    def sampler(self, clip_len: Fraction, video: VideoFacts) -> Sampler:
        """Return a sampler for a video with rows of ``clip_len`` seconds.

        Raises:
            FeatureError: the backbone has no rows of that length.
        """
        ...

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return the features (B, width) float32, not normalised, of samples stacked on a first axis."""
        ...


class PictureSampler:
    """The sampler of backbones that look at one picture a row: each picture is a sample."""

    def push(self, picture: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the picture."""
        yield picture

    def finish(self, duration: float) -> Iterator[np.ndarray]:
        """Yield nothing: no sample is left."""
        yield from ()
