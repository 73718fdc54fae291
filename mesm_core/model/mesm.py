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

        With ``targets``, also the saliency for a negative query, and the masked-word logits. Only dropout is random.
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

        negative_saliency = word_logits = moments = None
        if targets is not None:
            # The same videos with the text of another group's query; its words keep their positions in that text.
            negative = Tokens(*(value[targets.negative_query] for value in text))  # (Q, 1 + W, d)
            negative_words = Tokens(*(value[:, -words.x.shape[1] :] for value in negative))  # (Q, W, d)
            _, negative_saliency = self._encode(video, negative_words, negative)  # (Q, T)
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
        )

    def _video(self, inputs: Inputs) -> Tokens:
        """Return each query's projected video (Q, T, d) with its positions."""
        mask = inputs.frames_mask  # (Q, T)
        x = self.video_projection(inputs.video[inputs.video_index])  # (Q, T, d)
        return Tokens(x, frame_positions(mask, self.dim).to(x.dtype), mask)

    def _words(self, x: Tensor, mask: Tensor) -> Tokens:
        """Return words (Q, W, d) with their positions."""
        return Tokens(x, torch.zeros_like(x) if self.word_positions is None else self.word_positions(x), mask)

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
