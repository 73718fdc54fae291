"""Modal enhancement: FW-MESM (paper section 3.2) and SS-MESM (section 3.3).

Both reconstruct masked text from the video: FW-MESM reconstructs words, SS-MESM the whole sentence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.layers import CrossEncoder, ProjectionLayer

ENHANCE, RECONSTRUCT = 0, -1
"""Index of the feed-forward block of each direction. With a single block both are the same one."""


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
    """FW-MESM: frames attend to words; in training, masked words attend to the frames of the moment.

    Both directions share the attention of the encoder. They share its feed-forwards too, unless it has two blocks.

    Args:
        encoder: cross-encoder.
        head: masked-word classifier.
        text_dim: raw width Dt of the two learned tokens that replace unknown and masked words.
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
        """Replace unknown words, then masked words, by their projected tokens; return (Q, W, d).

        Args:
            words: (Q, W, d) projected words; masked, unknown: (Q, W) bool; project: the text projection.
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
        reconstructed = self.encoder(
            words, frames, a_pos=words_pos, b_pos=frames_pos, b_mask=frames_mask, block=RECONSTRUCT
        )  # (Q, W, d)
        logits: Tensor = self.head(reconstructed)
        return logits


class SegmentSentence(nn.Module):
    """SS-MESM: a masked sentence attends to the video; the result is the reconstruction of the query.

    The paper masks one sentence of a group at a time. The encoder updates every sentence independently, so only the
    masked one is computed.

    Args:
        encoder: cross-encoder.
        head: projection of the reconstruction. It is unused, but official checkpoints contain its weights.
        dim: width d.
    """

    def __init__(self, *, encoder: CrossEncoder, head: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head.requires_grad_(False)
        self.masked_sentence = nn.Parameter(torch.zeros(dim))

    def forward(self, frames: Tensor, frames_mask: Tensor) -> Tensor:
        """Return the reconstructions (Q, d), normalised to unit length.

        Args:
            frames: (Q, T, d) projected video that each query's sentence attends to; frames_mask: (Q, T) bool.
        """
        sentence = self.masked_sentence.expand(len(frames), 1, -1)  # (Q, 1, d)
        reconstructed = self.encoder(sentence, frames, b_mask=frames_mask)  # (Q, 1, d)
        return F.normalize(reconstructed.squeeze(1), dim=-1)
