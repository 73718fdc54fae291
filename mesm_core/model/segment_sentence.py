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
        self.head = head.requires_grad_(False)
        self.masked_sentence = nn.Parameter(torch.zeros(dim))

    def forward(self, frames: Tensor, frames_mask: Tensor, *, pick: Tensor | None = None) -> Tensor:
        """Return (B, d) reconstructions of length 1, one a context, or one a query.

        Args:
            frames: (B, T, d) projected video of each context; frames_mask: (B, T) bool.
            pick: (Q,) int64: the context of each query; it tells queries apart by their dropout alone.

        Source: mesm-model.md, "Segment-sentence enhancement".
        """
        token = self.masked_sentence.expand(len(frames if pick is None else pick), 1, -1)
        out = self.encoder(token, frames, b_mask=frames_mask if pick is None else frames_mask[pick], pick=pick)
        return F.normalize(out.squeeze(1), dim=-1)
