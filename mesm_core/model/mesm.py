"""MESM: composes injected parts into one pure function of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mesm_core.model.cross_encoder import CrossEncoder
from mesm_core.model.detr import Decoder, EncoderLayer, logit
from mesm_core.model.folded import frames_times
from mesm_core.model.frame_word import FrameWord
from mesm_core.model.layers import MLP
from mesm_core.model.packing import Packing
from mesm_core.model.positions import WordPositions, frame_positions
from mesm_core.model.segment_sentence import SegmentSentence
from mesm_core.types import Inputs, ModelOutput, Targets


class Mesm(nn.Module):
    """Modal-Enhanced Semantic Modeling (AAAI 2024, arXiv 2312.12155).

    Args:
        dim: hidden size d.
        video_projection, text_projection: (..., Dv+2) -> (..., d) and (..., Dt) -> (..., d).
        word_positions: learned word positions, or None for none.
        frame_word: FW-MESM, or None: the projected video stands for the enhanced one.
        segment_sentence: SS-MESM, or None: words have no reconstruction in front.
        aligner: cross-encoder by which the enhanced video looks at the text.
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

        With ``targets`` it also contrasts each query with another group's (negative saliency) and reconstructs
        masked words; it draws nothing but dropout.
        """
        queries, length = inputs.video_index.shape[0], inputs.video.shape[1]
        rows = Packing(inputs.frames, queries, length, runs=Packing.runs_of(inputs.video_mask[inputs.video_index]))
        source = inputs.video_index[rows.owner] * length + rows.index % length
        # Without dropout a video is the same for all its queries: it is projected once.
        once = None if self.training else self.video_projection(inputs.video)
        if once is None:
            video = self.video_projection(inputs.video.flatten(0, 1)[source])
        else:
            video = once.flatten(0, 1)[source]
        video_pos = frame_positions(inputs.video_mask, self.dim).to(video.dtype).flatten(0, 1)[source]
        mask = inputs.video_mask[inputs.video_index]
        words, words_mask = self.text_projection(inputs.words), inputs.words_mask
        recon = self._reconstruction(inputs, once)

        def paired(x: Tensor, *, foreign: bool) -> Tensor:
            """Return ``x`` with the negatives behind it, of the foreign queries or of the same ones."""
            if targets is None:
                return x
            return torch.cat([x, x[targets.negative_query] if foreign else x])

        # Negatives ride in the same pass, behind the positives: everything but the decoder is shared.
        both = rows if targets is None else rows.twice()
        frames_pos = paired(video_pos, foreign=False)
        text, text_mask, text_pos = self._text(words, words_mask, recon)

        enhanced = paired(video, foreign=False)
        if self.frame_word is not None:
            enhanced = self.frame_word.enhance(
                enhanced,
                video_pos=frames_pos,
                words=paired(words, foreign=True),
                words_pos=self._words_pos(words, text_pos, negatives=targets),
                words_mask=paired(words_mask, foreign=True),
                rows=both,
            )
        aligned = self.aligner(
            enhanced,
            paired(text, foreign=True),
            a_pos=frames_pos,
            b_pos=None if text_pos is None else paired(text_pos, foreign=True),
            b_mask=paired(text_mask, foreign=True),
            rows=both,
        )
        memory, saliency = self._encode(aligned, pos=frames_pos, mask=paired(mask, foreign=False), rows=both)
        outputs, references = self.decoder(memory[: len(rows.index)], pos=video_pos, mask=mask, rows=rows)
        padded = rows.pad(video)
        return ModelOutput(
            logits=[self.class_head(output) for output in outputs],
            spans=[(self.span_head(o) + logit(r)).sigmoid() for o, r in zip(outputs, references, strict=True)],
            saliency=saliency[:queries],
            negative_saliency=None if targets is None else saliency[queries:],
            word_logits=None if targets is None else self._word_logits(words, padded, rows.pad(video_pos), targets),
            video=padded,
            text=text,
            text_mask=text_mask,
            enhanced_video=rows.pad(enhanced[: len(rows.index)]),
            reconstruction=recon,
        )

    def _reconstruction(self, inputs: Inputs, projected: Tensor | None) -> Tensor | None:
        """Return SS-MESM's reconstructions (Q, d), or None where it is off.

        Args:
            projected: (V, T, d) the projected video; None projects it afresh, with a dropout of its own.
        """
        if self.segment_sentence is None:
            return None
        frames = self.video_projection(inputs.video) if projected is None else projected
        mask = inputs.video_mask
        if inputs.context is None or inputs.context_mask is None or inputs.context_index is None:
            rows = inputs.video_index
        else:
            frames, mask, rows = (
                frames.flatten(0, 1)[inputs.context],
                inputs.context_mask,
                inputs.context_index,
            )
        # With dropout each query's token goes its own way; without it one a context is enough.
        out: Tensor = self.segment_sentence(frames, mask, pick=rows if self.training else None)
        return out if self.training else out[rows]

    def _text(self, words: Tensor, words_mask: Tensor, recon: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the text that the aligner looks at: the reconstruction in front of the words."""
        if recon is not None:
            words = torch.cat([recon.unsqueeze(1), words], dim=1)
            words_mask = torch.cat([words_mask.new_ones(len(words), 1), words_mask], dim=1)
        return words, words_mask, None if self.word_positions is None else self.word_positions(words)

    def _words_pos(self, words: Tensor, text_pos: Tensor | None, *, negatives: Targets | None) -> Tensor | None:
        """Return the positions that frames see words at: a foreign query's stay behind its reconstruction."""
        if self.word_positions is None or text_pos is None:
            return None
        own: Tensor = self.word_positions(words)
        if negatives is None:
            return own
        behind = text_pos[negatives.negative_query][:, text_pos.shape[1] - words.shape[1] :]
        return torch.cat([own, behind])

    def _encode(self, video: Tensor, *, pos: Tensor, mask: Tensor, rows: Packing) -> tuple[Tensor, Tensor]:
        """Return the memory (N, d) and the saliency (B, T), 0 at padding; nothing looks at the global token."""
        x = torch.cat([self.global_token.expand(rows.batch, -1), video])
        pos = torch.cat([self.global_pos.expand(rows.batch, -1), pos])
        keys = torch.cat([mask.new_zeros(len(mask), 1), mask], dim=1)
        with_token = rows.with_token()
        for layer in self.encoder:
            x = layer(x, pos=pos, mask=keys, rows=with_token)
        summary, memory = torch.split(x, [rows.batch, len(x) - rows.batch])
        ours, summary = self.saliency_frames, self.saliency_global(summary)
        if rows.runs:
            products = rows.pad(frames_times(memory, summary, rows=rows, weight=ours.weight, bias=ours.bias))
        else:
            products = rows.pad(ours(memory)) @ summary.unsqueeze(-1)
        return memory, products.squeeze(-1) / math.sqrt(self.dim)

    def _word_logits(self, words: Tensor, video: Tensor, video_pos: Tensor, targets: Targets) -> Tensor | None:
        """Return masked-word logits (Q, W, classes), or None where FW-MESM is off."""
        if self.frame_word is None:
            return None
        hidden = self.frame_word.mask_words(
            words, masked=targets.masked_words, unknown=targets.unknown_words, project=self.text_projection
        )
        # index_select's gradient adds rows; that of an index of two dimensions sorts them first.
        first = torch.arange(len(words), device=words.device).unsqueeze(1) * video.shape[1]
        rows = (first + targets.moment_frames).flatten()
        frames, pos = (
            x.flatten(0, 1).index_select(0, rows).view(*targets.moment_frames.shape, -1) for x in (video, video_pos)
        )
        return self.frame_word.reconstruct(
            hidden,
            words_pos=None if self.word_positions is None else self.word_positions(words),
            frames=frames,
            frames_pos=pos,
            frames_mask=targets.moment_mask,
        )
