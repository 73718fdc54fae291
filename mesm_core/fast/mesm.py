"""The forward of ``mesm_core.model.mesm.Mesm`` over packed frames, by runs of videos of equal length."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mesm_core.fast.attention import frames_to_text, text_to_frames, token_to_frames
from mesm_core.fast.bfloat16 import Types
from mesm_core.fast.decoder import decoder
from mesm_core.fast.kernels import CpuKernels, Kernels, cpu_kernels, cuda_kernels
from mesm_core.fast.layers import cross_encoder, encoder_layer, parts, project, word_head, word_positions
from mesm_core.fast.packing import Packing
from mesm_core.fast.padded import PaddedForward, Products
from mesm_core.fast.table import TABLE, are_known, is_known
from mesm_core.fast.unprojected import frames_dot_items
from mesm_core.model.attention import MultiHeadAttention
from mesm_core.model.decoder import logit
from mesm_core.model.enhance import ENHANCE, RECONSTRUCT
from mesm_core.model.layers import CrossEncoder, EncoderLayer
from mesm_core.model.mesm import Mesm, with_reconstruction_of
from mesm_core.model.positions import frame_positions
from mesm_core.types import Inputs, ModelOutput, Targets

DEVICES: dict[str, Callable[..., Kernels]] = {"cpu": cpu_kernels, "cuda": cuda_kernels}
"""Device type -> function that chooses its kernels. Other devices use the reference forward."""


def accelerate(model: Mesm) -> Mesm:
    """Return a ``FastMesm`` that shares the model's parameters, or the model itself if ``fast.table`` lacks a part."""
    return FastMesm(model) if is_known(model, Mesm) else model


class FastMesm(Mesm):
    """A ``Mesm`` with a faster forward pass. It shares parameters, parts and mode with the model that it is made from.

    Frames are packed, i.e. padding is left out. Positives and negatives are encoded in one pass. Without dropout a
    video is projected once for all its queries. The reference forward is used on devices that are not in ``DEVICES``
    and if a part is not in ``fast.table``. Hooks on the whole model are called, hooks on its parts are not.

    ``exact``: whether all parts were in the table at the last call of ``train()`` or ``eval()``;
    ``types``: dtypes of products and saved tensors on the CPU, as for ``fast.feedforward.feedforward``.
    """

    def __init__(self, model: Mesm) -> None:
        self.__dict__ = model.__dict__  # not a copy, so that loading, moving and hooks apply to both models
        self.exact = True
        self.products = Products(self)
        self.types: Types | None = None

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and check the parts again, because one may have been replaced."""
        self.exact = are_known(self, TABLE[Mesm])
        if self.exact and not self.products.fit(self):
            self.products = Products(self)
        return super().train(mode)

    def forward(self, inputs: Inputs, targets: Targets | None = None) -> ModelOutput:
        """Return what ``Mesm.forward`` does."""
        choose = DEVICES.get(inputs.video.device.type)
        if choose is None or not self.exact:
            return super().forward(inputs, targets)
        kernels = choose(types=self.types)
        if isinstance(kernels, CpuKernels) and (runs := kernels.runs(inputs.frames_mask)):
            return _Forward(self, kernels, inputs, targets, runs).output()
        return PaddedForward(self, self.products, kernels, inputs, targets).output()


class _Forward:
    """One forward pass. N is the number of valid frames of all queries; 2N counts them for positives and negatives."""

    def __init__(
        self,
        model: Mesm,
        kernels: CpuKernels,
        inputs: Inputs,
        targets: Targets | None,
        runs: tuple[tuple[int, int], ...],
    ) -> None:
        self.model, self.kernels, self.inputs, self.targets = model, kernels, inputs, targets
        self.mask = inputs.frames_mask  # (Q, T)
        queries, length = self.mask.shape
        self.rows = Packing(inputs.frames, queries, length, runs=runs)
        self.pairs = self.rows if targets is None else self.rows.twice()

    def output(self) -> ModelOutput:
        """Return the model's output."""
        model, inputs, rows, targets = self.model, self.inputs, self.rows, self.targets
        source = inputs.sources
        # Without dropout the projected video is the same for all its queries.
        shared = None if model.training else project(self.kernels, model.video_projection, inputs.video)  # (V, T, d)
        if shared is None:
            video = project(self.kernels, model.video_projection, inputs.video.flatten(0, 1)[source])  # (N, d)
        else:
            video = shared.flatten(0, 1)[source]
        pos = frame_positions(inputs.video_mask, model.dim).to(video.dtype).flatten(0, 1)[source]  # (N, d)
        words = project(self.kernels, model.text_projection, inputs.words)  # (Q, W, d)
        recon = self._reconstruction(shared)
        text, text_mask = words, inputs.words_mask
        if recon is not None:
            text = torch.cat([recon.unsqueeze(1), words], dim=1)  # (Q, 1 + W, d)
            text_mask = F.pad(text_mask, (1, 0), value=True)
        text_pos = self._positions(text)

        enhanced, pairs_pos = self._twice(video), self._twice(pos)  # (2N, d)
        if model.frame_word is not None:
            enhanced = self._frames_to_text(
                model.frame_word.encoder, enhanced, pairs_pos, self._with_negatives(words),
                text_pos=self._words_pos(words, text_pos), text_mask=self._with_negatives(inputs.words_mask),
            )  # fmt: skip
        aligned = self._frames_to_text(
            model.aligner, enhanced, pairs_pos, self._with_negative_texts(text),
            text_pos=None if text_pos is None else self._with_negative_texts(text_pos),
            text_mask=self._with_negative_texts(text_mask),
        )  # fmt: skip
        memory, saliency = self._encode(aligned, pairs_pos)
        outputs, references = decoder(self.kernels, model.decoder, memory[: len(rows.index)], pos=pos, rows=rows)
        moments = word_logits = negative_logits = None
        if targets is not None:
            moments, moments_pos = self._moments(video, targets), self._moments(pos, targets)
            word_logits = self._word_logits(words, moments, moments_pos, targets)
            if targets.absent is not None:
                negatives, _ = decoder(self.kernels, model.decoder, memory[len(rows.index) :], pos=pos, rows=rows)
                negative_logits = model.class_head(negatives)
        return ModelOutput(
            logits=model.class_head(outputs),
            spans=(model.span_head(outputs) + logit(references)).sigmoid(),
            saliency=saliency[: rows.batch],
            negative_saliency=None if targets is None else saliency[rows.batch :],
            word_logits=word_logits,
            moments=moments,
            text=text,
            text_mask=text_mask,
            negative_logits=negative_logits,
        )

    def _twice(self, x: Tensor) -> Tensor:
        """Return ``x`` for the positives and again for the negatives."""
        return x if self.targets is None else torch.cat([x, x])

    def _with_negatives(self, x: Tensor) -> Tensor:
        """Return ``x`` (Q, ...) followed by the ``x`` of each negative query."""
        return x if self.targets is None else torch.cat([x, x[self.targets.negative_query]])

    def _with_negative_texts(self, x: Tensor) -> Tensor:
        """Return ``x`` (Q, R + W, ...) of the texts followed by the ``x`` of the negatives' texts."""
        if self.targets is None or self.targets.absent is None:
            return self._with_negatives(x)
        negative = x[self.targets.negative_query]
        return torch.cat([x, with_reconstruction_of(x, negative, words=self.inputs.words.shape[1])])

    def _positions(self, words: Tensor) -> Tensor | None:
        """Return the learned positions of words (Q, W, d), or None for zeros."""
        positions = self.model.word_positions
        return None if positions is None else word_positions(self.kernels, positions, words)

    def _words_pos(self, words: Tensor, text_pos: Tensor | None) -> Tensor | None:
        """Return the positions of words, followed by those of the negatives' words, as in ``Mesm._negative``."""
        own = self._positions(words)
        if own is None or text_pos is None or self.targets is None:
            return own
        if self.targets.absent is not None:
            return self._with_negatives(own)
        negative = text_pos[self.targets.negative_query][:, text_pos.shape[1] - words.shape[1] :]
        return torch.cat([own, negative])

    def _reconstruction(self, projected: Tensor | None) -> Tensor | None:
        """Return SS-MESM's reconstructions (Q, d), or None without it: ``SegmentSentence`` of ``Mesm._context``.

        Args:
            projected: (V, T, d) the projected videos, or None to project them again, with their own dropout.
        """
        module, inputs, kernels = self.model.segment_sentence, self.inputs, self.kernels
        if module is None:
            return None
        frames = project(kernels, self.model.video_projection, inputs.video) if projected is None else projected
        mask, index = inputs.video_mask, inputs.video_index
        if inputs.context is not None and inputs.context_mask is not None and inputs.context_index is not None:
            frames, mask, index = frames.flatten(0, 1)[inputs.context], inputs.context_mask, inputs.context_index
        # Without dropout, queries with the same context have the same reconstruction.
        pick = index if self.model.training else None
        key_mask = mask if pick is None else mask[pick]

        def attend(attention: MultiHeadAttention, sentence: Tensor) -> Tensor:
            return token_to_frames(kernels, attention, sentence, frames, key_mask=key_mask, pick=pick)

        sentence = module.masked_sentence.expand(len(key_mask), 1, -1)
        recon = F.normalize(cross_encoder(kernels, module.encoder, sentence, attend).squeeze(1), dim=-1)
        return recon if pick is not None else recon[index]

    def _frames_to_text(
        self,
        encoder: CrossEncoder,
        frames: Tensor,
        pos: Tensor,
        text: Tensor,
        *,
        text_pos: Tensor | None,
        text_mask: Tensor,
    ) -> Tensor:
        """Return ``encoder(frames, text, ...)``, with frames and pos (2N, d) packed."""
        key = text if text_pos is None else text + text_pos

        def attend(attention: MultiHeadAttention, x: Tensor) -> Tensor:
            return frames_to_text(attention, x + pos, key, text, key_mask=text_mask, rows=self.pairs)

        return cross_encoder(self.kernels, encoder, frames, attend, block=ENHANCE)

    def _encode(self, video: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Return the memory (2N, d) and the saliency (2Q, T), 0 at padding."""
        model, rows = self.model, self.pairs
        x = torch.cat([model.global_token.expand(rows.batch, -1), video])
        pos = torch.cat([model.global_pos.expand(rows.batch, -1), pos])
        with_token = rows.with_token()
        for layer in parts(model.encoder, EncoderLayer):
            x = encoder_layer(self.kernels, layer, x, pos=pos, rows=with_token)
        token, memory = torch.split(x, [rows.batch, len(x) - rows.batch])
        frames, token = model.saliency_frames, model.saliency_global(token)
        products = rows.pad(frames_dot_items(memory, token, rows=rows, weight=frames.weight, bias=frames.bias))
        return memory, products.squeeze(-1) / math.sqrt(model.dim)

    def _moments(self, x: Tensor, targets: Targets) -> Tensor:
        """Return the frames (Q, C, d) of each query's moment, of packed frames (N, d)."""
        lengths = self.mask.sum(dim=1)
        first = lengths.cumsum(dim=0) - lengths
        # The gradient of index_select adds rows directly; that of a two-dimensional index sorts them first.
        rows = x.index_select(0, (first.unsqueeze(1) + targets.moment_frames).flatten())
        return rows.view(*targets.moment_frames.shape, -1)

    def _word_logits(self, words: Tensor, frames: Tensor, frames_pos: Tensor, targets: Targets) -> Tensor | None:
        """Return ``Mesm._word_logits`` (Q, W, classes); frames, frames_pos: (Q, C, d) of the moments."""
        module, kernels = self.model.frame_word, self.kernels
        if module is None:
            return None
        masked = module.mask_words(
            words,
            masked=targets.masked_words,
            unknown=targets.unknown_words,
            project=partial(project, kernels, self.model.text_projection),
        )
        key, words_pos = frames + frames_pos, self._positions(words)

        def attend(attention: MultiHeadAttention, x: Tensor) -> Tensor:
            query = x if words_pos is None else x + words_pos
            return text_to_frames(attention, query, key, frames, key_mask=targets.moment_mask)

        return word_head(
            kernels, module.head, cross_encoder(kernels, module.encoder, masked, attend, block=RECONSTRUCT)
        )
