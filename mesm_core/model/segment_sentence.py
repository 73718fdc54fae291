"""Segment-sentence enhancement, SS-MESM (paper section 3.3): a masked sentence is rebuilt from the video."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.cross_encoder import CrossEncoder


class SegmentSentence(nn.Module):
    """Rebuilds a query's sentence from the frames around it.

    A layer updates each sentence of a group on its own, by looking at frames alone, so a query's reconstruction
    depends on the mask token and the frames and on no other sentence: only the masked one is computed.

    Args:
        encoder: cross-encoder.
        head: projection of the reconstruction; no loss reads it, official checkpoints carry it.
        dim: width.
    """

    def __init__(self, *, encoder: CrossEncoder, head: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.masked_sentence = nn.Parameter(torch.zeros(dim))

    def forward(self, frames: Tensor, frames_mask: Tensor) -> Tensor:
        """Return (B, d) reconstructions of length 1.

        Args:
            frames: (B, T, d) projected video of each query's context; frames_mask: (B, T) bool.

        Source: mesm-model.md, "Segment-sentence enhancement".
        """
        token = self.masked_sentence.expand(frames.shape[0], 1, -1)
        out = self.encoder(token, frames, b_mask=frames_mask)
        return F.normalize(out.squeeze(1), dim=-1)
