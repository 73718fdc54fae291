"""Modal enhancement: FW-MESM (paper section 3.2) and SS-MESM (section 3.3).

Both rebuild a masked part of the text from the video: FW-MESM its words, SS-MESM its sentence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.layers import CrossEncoder, ProjectionLayer

ENHANCE, RECONSTRUCT = 0, -1
"""Feed-forward block of each direction; the same one where the encoder has only one."""


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
    """FW-MESM: frames attend to words, and in training masked words attend to the moment's frames.

    Both directions share the encoder's attention and, unless it has two feed-forward blocks, its feed-forwards.

    Args:
        encoder: cross-encoder.
        head: masked-word classifier.
        text_dim: raw width Dt of the tokens that stand for unknown and for masked words.
    """

    def __init__(self, *, encoder: CrossEncoder, head: WordHead, text_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.masked_token = nn.Parameter(torch.zeros(text_dim))
        self.unknown_token = nn.Parameter(torch.zeros(text_dim))

    def enhance(
        self, video: Tensor, words: Tensor, *, video_pos: Tensor, words_pos: Tensor, words_mask: Tensor
    ) -> Tensor:
        """Return the enhanced video (Q, T, d).

        Args:
            video, video_pos: (Q, T, d); words, words_pos: (Q, W, d); words_mask: (Q, W) bool.
        """
        enhanced: Tensor = self.encoder(
            video, words, a_pos=video_pos, b_pos=words_pos, b_mask=words_mask, block=ENHANCE
        )
        return enhanced

    def mask_words(
        self, words: Tensor, *, masked: Tensor, unknown: Tensor, project: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return words (Q, W, d) with first the unknown and then the masked ones replaced by their projected tokens.

        Args:
            words: (Q, W, d) projected; masked, unknown: (Q, W) bool; project: the text projection.
        """
        unknown_token, masked_token = project(torch.stack([self.unknown_token, self.masked_token])).unbind()  # (d,)
        words = torch.where(unknown.unsqueeze(-1), unknown_token, words)
        return torch.where(masked.unsqueeze(-1), masked_token, words)

    def reconstruct(
        self, words: Tensor, frames: Tensor, *, words_pos: Tensor, frames_pos: Tensor, frames_mask: Tensor
    ) -> Tensor:
        """Return masked-word logits (Q, W, classes).

        Args:
            words, words_pos: (Q, W, d) from ``mask_words``; frames, frames_pos: (Q, C, d) of the moment;
                frames_mask: (Q, C) bool.
        """
        rebuilt = self.encoder(
            words, frames, a_pos=words_pos, b_pos=frames_pos, b_mask=frames_mask, block=RECONSTRUCT
        )  # (Q, W, d)
        logits: Tensor = self.head(rebuilt)
        return logits


class SegmentSentence(nn.Module):
    """SS-MESM: a masked sentence attends to the video and becomes the query's reconstruction.

    The paper masks one sentence of a group at a time. The encoder updates each sentence on its own, so the others
    cannot change the result: only the masked one is computed.

    Args:
        encoder: cross-encoder.
        head: projection of the reconstruction. No loss reads it; official checkpoints carry it.
        dim: width d.
    """

    def __init__(self, *, encoder: CrossEncoder, head: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head.requires_grad_(False)
        self.masked_sentence = nn.Parameter(torch.zeros(dim))

    def forward(self, frames: Tensor, frames_mask: Tensor) -> Tensor:
        """Return reconstructions (Q, d) of length 1.

        Args:
            frames: (Q, T, d) projected video that each query's sentence attends to; frames_mask: (Q, T) bool.
        """
        sentence = self.masked_sentence.expand(len(frames), 1, -1)  # (Q, 1, d)
        rebuilt = self.encoder(sentence, frames, b_mask=frames_mask)  # (Q, 1, d)
        return F.normalize(rebuilt.squeeze(1), dim=-1)
