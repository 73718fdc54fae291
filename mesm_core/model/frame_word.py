"""Frame-word enhancement, FW-MESM (paper section 3.2): frames look at words, and masked words at frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mesm_core.model.cross_encoder import CrossEncoder
from mesm_core.model.layers import ProjectionLayer
from mesm_core.model.packing import Packing

ENHANCE, RECONSTRUCT = 0, 1


class WordHead(nn.Module):
    """Masked-word classifier: LayerNorm -> Dropout -> Linear -> ReLU -> Linear."""

    def __init__(self, *, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.hidden = ProjectionLayer(in_dim=dim, out_dim=dim, dropout=dropout, relu=True)
        self.output = nn.Linear(dim, classes)

    def forward(self, words: Tensor) -> Tensor:
        """Return (Q, W, classes) logits of (Q, W, dim)."""
        out: Tensor = self.output(self.hidden(words))
        return out


class FrameWord(nn.Module):
    """The frame-word encoder in both its roles.

    Args:
        encoder: cross-encoder; with two roles where the feed-forwards are not shared.
        head: masked-word classifier.
        text_dim: raw width of the tokens that stand for unknown and for masked words.
    """

    def __init__(self, *, encoder: CrossEncoder, head: WordHead, text_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.masked_token = nn.Parameter(torch.zeros(text_dim))
        self.unknown_token = nn.Parameter(torch.zeros(text_dim))

    def enhance(
        self,
        video: Tensor,
        *,
        video_pos: Tensor,
        words: Tensor,
        words_pos: Tensor | None,
        words_mask: Tensor,
        rows: Packing,
    ) -> Tensor:
        """Return the enhanced video (N, d): frames look at the words.

        Args:
            video, video_pos: (N, d) packed frames, as ``rows`` says; words: (Q, W, d); words_pos: the same or None;
                words_mask: (Q, W) bool.
        """
        out: Tensor = self.encoder(
            video, words, a_pos=video_pos, b_pos=words_pos, b_mask=words_mask, role=ENHANCE, rows=rows
        )
        return out

    def mask_words(self, words: Tensor, *, masked: Tensor, unknown: Tensor, project: nn.Module) -> Tensor:
        """Return words (Q, W, d) with the unknown and then the masked ones replaced by their projected tokens.

        Args:
            words: (Q, W, d) projected; masked, unknown: (Q, W) bool; project: the text projection.
        """
        unknown_token, masked_token = project(torch.stack([self.unknown_token, self.masked_token])).unbind()
        words = torch.where(unknown.unsqueeze(-1), unknown_token, words)
        return torch.where(masked.unsqueeze(-1), masked_token, words)

    def reconstruct(
        self,
        words: Tensor,
        *,
        words_pos: Tensor | None,
        frames: Tensor,
        frames_pos: Tensor,
        frames_mask: Tensor,
    ) -> Tensor:
        """Return masked-word logits (Q, W, classes): masked words look at the moment's frames.

        Args:
            words: (Q, W, d) with masked words replaced; words_pos: the same or None.
            frames, frames_pos: (Q, C, d) the moment's frames, packed; frames_mask: (Q, C) bool.
        """
        out = self.encoder(words, frames, a_pos=words_pos, b_pos=frames_pos, b_mask=frames_mask, role=RECONSTRUCT)
        logits: Tensor = self.head(out)
        return logits
