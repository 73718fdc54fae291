"""The MESM network, composed of injected parts. ``mesm_core.types`` explains the letters of the shapes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.decoder import Decoder, logit
from mesm_core.model.enhance import FrameWord, SegmentSentence
from mesm_core.model.layers import MLP, CrossEncoder, EncoderLayer
from mesm_core.model.positions import WordPositions, frame_positions
from mesm_core.types import Inputs, ModelOutput, Targets


class Tokens(NamedTuple):
    """A padded sequence ``x`` (Q, L, d), its positions ``pos`` (Q, L, d), and ``mask`` (Q, L), True where valid."""

    x: Tensor
    pos: Tensor
    mask: Tensor


class Mesm(nn.Module):
    """Modal-Enhanced Semantic Modeling (AAAI 2024, arXiv 2312.12155).

    Args:
        dim: hidden size d.
        video_projection, text_projection: (..., Dv+2) -> (..., d) and (..., Dt) -> (..., d).
        word_positions: learned word positions, or None for zeros.
        frame_word: FW-MESM, or None to use the projected video in place of the enhanced one.
        segment_sentence: SS-MESM, or None to put no reconstruction in front of the words.
        aligner: cross-encoder in which the enhanced video attends to the text.
        encoder: self-attention layers over the global token and the frames.
        decoder: moment decoder.
    """

    def __init__(
        self,
        *,
        dim: int,
        video_projection: nn.Module,
        text_projection: nn.Module,
        word_positions: WordPositions | None,
        frame_word: FrameWord | None,
        segment_sentence: SegmentSentence | None,
        aligner: CrossEncoder,
        encoder: list[EncoderLayer],
        decoder: Decoder,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.video_projection = video_projection
        self.text_projection = text_projection
        self.word_positions = word_positions
        self.frame_word = frame_word
        self.segment_sentence = segment_sentence
        self.aligner = aligner
        self.global_token = nn.Parameter(torch.randn(dim))
        self.global_pos = nn.Parameter(torch.randn(dim))
        self.encoder = nn.ModuleList(encoder)
        self.decoder = decoder
        self.class_head = nn.Linear(dim, 2)
        self.span_head = MLP(dim, dim, dim, 2)
        self.saliency_frames = nn.Linear(dim, dim)
        self.saliency_global = nn.Linear(dim, dim)

    def forward(self, inputs: Inputs, targets: Targets | None = None) -> ModelOutput:
        """Return the moments and the saliency of every query.

        With ``targets``, also the saliency for a negative query, and the masked-word logits. If the targets say which
        negative queries are absent, also the logits of the slots for them. Only dropout is random.
        """
        video = self._video(inputs)  # (Q, T, d)
        words = self._words(self.text_projection(inputs.words), inputs.words_mask)  # (Q, W, d)

        # SS-MESM: the sentence, rebuilt from the video, is prepended to the words.
        text = words
        if self.segment_sentence is not None:
            reconstruction = self.segment_sentence(*self._context(inputs))  # (Q, d)
            sequence = torch.cat([reconstruction.unsqueeze(1), words.x], dim=1)  # (Q, 1 + W, d)
            text = self._words(sequence, F.pad(words.mask, (1, 0), value=True))

        memory, saliency = self._encode(video, words, text)  # (Q, T, d), (Q, T)
        outputs, references = self.decoder(memory, pos=video.pos, mask=video.mask)  # (L, Q, N, d), (L, Q, N, 2)

        negative_saliency = negative_logits = word_logits = moments = None
        if targets is not None:
            negative_words, negative = self._negative(words, text, targets)  # (Q, W, d), (Q, 1 + W, d)
            negative_memory, negative_saliency = self._encode(video, negative_words, negative)  # (Q, T, d), (Q, T)
            if targets.absent is not None:
                negative_outputs, _ = self.decoder(negative_memory, pos=video.pos, mask=video.mask)  # (L, Q, N, d)
                negative_logits = self.class_head(negative_outputs)  # (L, Q, N, 2)
            moment = self._moment(video, targets)  # (Q, C, d)
            word_logits, moments = self._word_logits(words, moment, targets), moment.x  # (Q, W, classes)

        return ModelOutput(
            logits=self.class_head(outputs),  # (L, Q, N, 2)
            spans=(self.span_head(outputs) + logit(references)).sigmoid(),  # (L, Q, N, 2)
            saliency=saliency,
            negative_saliency=negative_saliency,
            word_logits=word_logits,
            moments=moments,
            text=text.x,
            text_mask=text.mask,
            negative_logits=negative_logits,
        )

    def _video(self, inputs: Inputs) -> Tokens:
        """Return each query's projected video (Q, T, d) with its positions."""
        mask = inputs.frames_mask  # (Q, T)
        x = self.video_projection(inputs.video[inputs.video_index])  # (Q, T, d)
        return Tokens(x, frame_positions(mask, self.dim).to(x.dtype), mask)

    def _words(self, x: Tensor, mask: Tensor) -> Tokens:
        """Return words (Q, W, d) with their positions."""
        return Tokens(x, torch.zeros_like(x) if self.word_positions is None else self.word_positions(x), mask)

    def _negative(self, words: Tokens, text: Tokens, targets: Targets) -> tuple[Tokens, Tokens]:
        """Return the words of another group's query for each query, and the text with them.

        The text is that of the other query, with the reconstruction from its video, and the words keep their positions
        in it. If the decoder is trained with them, words and text are what inference would see: the words have their
        own positions, and the reconstruction is that from the asked video.
        """
        query, length = targets.negative_query, words.x.shape[1]
        other = Tokens(*(value[query] for value in text))
        if targets.absent is None:
            return Tokens(*(value[:, -length:] for value in other)), other
        pairs = zip(text, other, strict=True)
        asked = Tokens(*(with_reconstruction_of(own, value, words=length) for own, value in pairs))
        return Tokens(*(value[query] for value in words)), asked

    def _context(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the frames (Q, T', d) that SS-MESM's sentences attend to, projected again, and their mask (Q, T')."""
        frames, mask, index = self.video_projection(inputs.video), inputs.video_mask, inputs.video_index  # (V, T, d)
        if inputs.context is not None and inputs.context_mask is not None and inputs.context_index is not None:
            frames, mask, index = frames.flatten(0, 1)[inputs.context], inputs.context_mask, inputs.context_index
        return frames[index], mask[index]

    def _encode(self, video: Tokens, words: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
        """Return the decoder's memory (Q, T, d) and the saliency (Q, T) of each video for its query's text.

        Args:
            words: the query's words; text: the same words with the reconstruction in front, where there is one.
        """
        # In FW-MESM frames attend to the words; in the aligner, to the reconstruction and the words.
        enhanced = video.x
        if self.frame_word is not None:
            enhanced = self.frame_word.enhance(
                video.x, words.x, video_pos=video.pos, words_pos=words.pos, words_mask=words.mask
            )
        aligned = self.aligner(enhanced, text.x, a_pos=video.pos, b_pos=text.pos, b_mask=text.mask)
        # The global token attends to the frames. It is masked as a key, so nothing attends to it.
        tokens, token_pos = (x.expand(len(aligned), 1, -1) for x in (self.global_token, self.global_pos))
        x = torch.cat([tokens, aligned], dim=1)  # (Q, 1 + T, d)
        pos, mask = torch.cat([token_pos, video.pos], dim=1), F.pad(video.mask, (1, 0), value=False)
        for layer in self.encoder:
            x = layer(x, pos=pos, mask=mask)
        token, memory = x[:, :1], x[:, 1:]
        saliency = self.saliency_frames(memory) @ self.saliency_global(token).transpose(1, 2)  # (Q, T, 1)
        return memory, saliency.squeeze(-1) / math.sqrt(self.dim)

    def _moment(self, video: Tokens, targets: Targets) -> Tokens:
        """Return the frames (Q, C, d) of each query's moment, with their positions in the video."""
        row = torch.arange(len(video.x), device=video.x.device).unsqueeze(1)
        x, pos = (value[row, targets.moment_frames] for value in (video.x, video.pos))
        return Tokens(x, pos, targets.moment_mask)

    def _word_logits(self, words: Tokens, moment: Tokens, targets: Targets) -> Tensor | None:
        """Return masked-word logits (Q, W, classes), or None without FW-MESM."""
        if self.frame_word is None:
            return None
        masked = self.frame_word.mask_words(
            words.x, masked=targets.masked_words, unknown=targets.unknown_words, project=self.text_projection
        )
        return self.frame_word.reconstruct(
            masked, moment.x, words_pos=words.pos, frames_pos=moment.pos, frames_mask=moment.mask
        )


def with_reconstruction_of(text: Tensor, other: Tensor, *, words: int) -> Tensor:
    """Return the words of ``other`` after the reconstruction of ``text``.

    Args:
        text, other: (Q, R + W, ...) with R = 1 reconstruction or, without SS-MESM, R = 0; words: the number W.
    """
    front = text.shape[1] - words
    return torch.cat([text[:, :front], other[:, front:]], dim=1)
