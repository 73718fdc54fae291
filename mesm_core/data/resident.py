"""The features of a dataset in a device's memory, from which batches gather them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class ResidentFeatures:
    """The features of videos in one table on a device.

    ``table``: (rows, D); the first row has zeros, for padding.

    Args:
        lengths: number of frames of each video; dim: D; dtype: ``float16`` or ``float32``.
    """

    def __init__(self, lengths: Mapping[str, int], *, dim: int, dtype: str, device: torch.device) -> None:
        ends = np.cumsum([1, *lengths.values()]).tolist()
        self._rows = dict(zip(lengths, map(slice, ends, ends[1:]), strict=False))
        self.table: Tensor = torch.zeros(ends[-1], dim, dtype=getattr(torch, dtype), device=device)

    def put(self, vid: str, frames: np.ndarray) -> None:
        """Copy the frames (L, D) of a video into the table."""
        self.table[self._rows[vid]] = torch.from_numpy(frames).to(self.table.device)

    def rows(self, vid: str) -> np.ndarray:
        """Return (L,) int64, the rows of a video's frames."""
        found = self._rows[vid]
        return np.arange(found.start, found.stop)
