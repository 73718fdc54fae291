"""``pixels``: an image descriptor without weights, for demonstrations and tests.

It describes colours, edges and changes, but not the content of pictures. For real videos, use features of a trained
network (``clip-b32``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mesm_core.backbones.protocol import Precision, VideoInfo

if TYPE_CHECKING:
    import torch

GRID = 7
"""The picture is described in GRID × GRID cells."""
WIDTH = 256
SEED = 20_240
GREY = np.full(3, 1 / 3, np.float32)
CENTRE = (0.4, 0.4, 0.4, 0.1, 0.1, 0.1, 0.05, 0.05, 0.06, 0.06, 0.06)
"""Approximate mean of a cell's 11 numbers over ordinary videos. Subtracted, since it would dominate every feature's
norm and hide the differences between pictures."""


class PairSampler:
    """Pairs the picture of each row with that of the previous row, to measure change."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def push(self, picture: np.ndarray) -> Iterator[np.ndarray]:
        """Yield (2, S, S, 3) uint8: the previous picture (for the first row, itself) and this one."""
        yield np.stack([picture if self._before is None else self._before, picture])
        self._before = picture

    def finish(self, duration: float) -> Iterator[np.ndarray]:
        """Yield nothing: no sample is left."""
        yield from ()


class Pixels:
    """Colour layout, gradients and change of each cell of a picture, through a fixed random projection.

    For every cell of a 7 × 7 grid: the mean and the standard deviation of red, green and blue (6 numbers), the mean
    strength of horizontal and vertical gradients (2), and the mean change of the three colours since the previous row
    (3). The means ``CENTRE`` are subtracted from the 11 numbers of each cell, and the 539 numbers are multiplied by a
    matrix of N(0, 1/539) values drawn with a fixed seed.
    """

    name = "pixels"
    width = WIDTH

    def __init__(self) -> None:
        numbers = GRID * GRID * 11
        projection = np.random.default_rng(SEED).normal(size=(numbers, WIDTH)) / numbers**0.5
        self._projection = projection.astype(np.float32)
        self._centre = np.array(CENTRE, np.float32)
        parameters = self._projection.round(4).tobytes() + self._centre.tobytes()
        self.weights_hash = hashlib.sha256(parameters).hexdigest()[:32]

    def picture_seconds(self, clip_len: Fraction) -> Fraction:
        """Return ``clip_len``: one picture a row."""
        return clip_len

    def sampler(self, clip_len: Fraction, video: VideoInfo) -> PairSampler:
        """Return a sampler for a video."""
        return PairSampler()

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return (B, 256) float32 features of (B, 2, S, S, 3) uint8 pairs of pictures; S is a multiple of 7.

        One pair at a time: products of several rows at once may differ in the last bit from those of one.
        """
        return np.stack([self._describe(pair) for pair in samples])

    def _describe(self, pair: np.ndarray) -> np.ndarray:
        before, now = pair.astype(np.float32) / 255
        mean = _cell_means(now)
        spread = np.sqrt(_cell_means(np.square(now - _spread_out(mean, now.shape[0]))))
        grey = now @ GREY
        edges = np.zeros((*grey.shape, 2), np.float32)
        np.abs(np.diff(grey, axis=1), out=edges[:, 1:, 0])
        np.abs(np.diff(grey, axis=0), out=edges[1:, :, 1])
        parts = [mean, spread, _cell_means(edges) * 4, _cell_means(np.abs(now - before)) * 2]
        described = np.concatenate(parts, axis=-1) - self._centre
        features: np.ndarray = described.reshape(-1) @ self._projection
        return features


def build(weights: Path | None, device: torch.device, precision: Precision) -> Pixels:
    """Return the backbone, which has no weights and computes with NumPy."""
    return Pixels()


def _cell_means(picture: np.ndarray) -> np.ndarray:
    """Return the (GRID, GRID, channels) means over the cells of an (S, S, channels) picture."""
    side, _, channels = picture.shape
    rows = picture.reshape(GRID, side // GRID, side, channels).mean(axis=1)
    means: np.ndarray = rows.reshape(GRID, GRID, side // GRID, channels).mean(axis=2)
    return means


def _spread_out(cells: np.ndarray, side: int) -> np.ndarray:
    """Return an (S, S, channels) picture in which every pixel has its cell's value."""
    return cells.repeat(side // GRID, axis=0).repeat(side // GRID, axis=1)
