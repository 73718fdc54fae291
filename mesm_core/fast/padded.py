"""The forward of ``mesm_core.model.mesm.Mesm`` with few kernel launches, for GPUs and compiled graphs.

Frames are packed; only attention is computed padded, because the host does not know the lengths. Nothing waits for the
device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.assembly import Assembly
from mesm_core.fast.joined import Joined, Part, side_by_side
from mesm_core.fast.kernels import Kernels
from mesm_core.fast.layers import parts, word_positions
from mesm_core.fast.padded_decoder import DecoderProducts, refined
from mesm_core.fast.padded_layers import CrossProducts, Pass, SelfProducts, Stream
from mesm_core.fast.padding import MASKED, Rows, attention_bias
from mesm_core.fast.weights import Weights
from mesm_core.losses.unit import unit
from mesm_core.model.enhance import ENHANCE, RECONSTRUCT
from mesm_core.model.layers import EncoderLayer
from mesm_core.model.mesm import Mesm, with_reconstruction_of
from mesm_core.model.positions import frame_positions
from mesm_core.types import Inputs, ModelOutput, Targets


class Products:
    """The products of a model. They hold its modules, not their weights, so they stay valid while it is trained."""

    def __init__(self, model: Mesm) -> None:
        frame_word, segment_sentence = model.frame_word, model.segment_sentence
        self.frame_word = None if frame_word is None else CrossProducts(frame_word.encoder)
        self.segment_sentence = None if segment_sentence is None else CrossProducts(segment_sentence.encoder, same=True)
        self.aligner = CrossProducts(model.aligner, same=model.word_positions is None)
        self.encoder = [SelfProducts(layer) for layer in parts(model.encoder, EncoderLayer)]
        self.decoder = DecoderProducts(model.decoder)
        self.without_output = [] if segment_sentence is None else list(segment_sentence.head.modules())
        self.heads = side_by_side(Part(parts(model.span_head.layers, nn.Linear)[0]), Part(model.class_head))
        encoders = [self.frame_word, self.segment_sentence, self.aligner, *self.encoder, self.decoder]
        self.joined: list[Joined] = [self.heads, *(j for each in encoders if each is not None for j in each.joined)]
        self.parts = _modules_and_shapes(model)
        self._assemblies: dict[bool, Assembly] = {}

    def fit(self, model: Mesm) -> bool:
        """Return whether the model has the modules of these products, with parameters of the same shapes."""
        return self.parts == _modules_and_shapes(model)

    def assembly(self, *, rounded: bool) -> Assembly:
        """Return the layout of the weights: of all layers if they are rounded, else of the joined ones."""
        if rounded not in self._assemblies:
            self._assemblies[rounded] = self._assembly_of_all() if rounded else self._assembly_of_joined()
        return self._assemblies[rounded]

    def _assembly_of_joined(self) -> Assembly:
        return Assembly(self.joined, unused=self.decoder.unused)

    def _assembly_of_all(self) -> Assembly:
        modules, _ = self.parts
        unused = self.decoder.unused
        inside: set[nn.Module] = {*self.without_output, *(owner for owner, _ in unused)}
        inside |= {part.module for product in self.joined for row in product.rows for part in row if part is not None}
        single = [side_by_side(Part(x)) for x in modules if isinstance(x, nn.Linear) and x not in inside]
        return Assembly([*self.joined, *single], [x for x in modules if isinstance(x, nn.PReLU)], unused)


def _modules_and_shapes(model: Mesm) -> tuple[list[nn.Module], list[torch.Size]]:
    return list(model.modules()), [parameter.shape for parameter in model.parameters()]


class PaddedForward:
    """One forward pass. N is the number of valid frames of all queries; 2N counts them for positives and negatives."""

    def __init__(
        self, model: Mesm, products: Products, kernels: Kernels, inputs: Inputs, targets: Targets | None
    ) -> None:
        self.model, self.products, self.inputs, self.targets = model, products, inputs, targets
        weights = Weights(products.assembly, like=model.global_token)
        self.given = Pass(weights, kernels)
        self.mask = inputs.frames_mask  # (Q, T)
        self.rows = Rows.of(inputs.frames, self.mask)
        self.pairs = self.rows if targets is None else self.rows.twice()

    def output(self) -> ModelOutput:
        """Return the model's output."""
        # Products convert their inputs themselves. Autocast would convert the weights again for every product.
        with torch.autocast(self.inputs.video.device.type, enabled=False):
            return self._output()

    def _output(self) -> ModelOutput:
        model, products, inputs, targets = self.model, self.products, self.inputs, self.targets
        dtype = self.given.weights.dtype
        source = inputs.sources  # (N,)
        video, context = self._video(source)  # (N, d), (V, T, d)
        words, masked = self._words()  # (Q, W, d), (Q·W, d)
        pos = (
            frame_positions(inputs.video_mask, model.dim).to(video.dtype).flatten(0, 1).index_select(0, source)
        )  # (N, d)
        recon = self._reconstruction(context)
        text, text_mask = words, inputs.words_mask
        if recon is not None:
            text = torch.cat([recon.unsqueeze(1), words], dim=1)  # (Q, 1 + W, d)
            text_mask = F.pad(text_mask, (1, 0), value=True)
        text_pos = self._positions(text)

        both = self._with_negative_texts(text).to(dtype)
        both_pos = None if text_pos is None else self._with_negative_texts(text_pos)
        both_mask = self._with_negative_texts(text_mask)
        text_bias, words_bias = (attention_bias(both_mask, dtype) for _ in range(2))
        if recon is not None:
            words_bias[..., :1].fill_(MASKED)  # FW-MESM's frames do not attend to the reconstruction
        enhanced, pairs_pos = self._twice(video), self._twice(pos)  # (2N, d)
        moments = word_logits = negative_logits = None
        if targets is not None:
            moments = self._moments(video, targets)  # (Q, C, d)
        if products.frame_word is not None:
            words_pos = self._words_pos(words, both_pos)
            key = both if words_pos is None else both + words_pos
            streams = [Stream(enhanced, key, both, words_bias, pos=pairs_pos, packed=self.pairs, block=ENHANCE)]
            if targets is not None and moments is not None:
                streams.append(self._to_moments(masked, words, moments, self._moments(pos, targets), targets))
            enhanced, *reconstructed = products.frame_word(self.given, *streams)
            word_logits = self._word_logits(*reconstructed, shape=words.shape) if reconstructed else None
        aligner = Stream(
            enhanced, both if both_pos is None else both + both_pos, both, text_bias, pos=pairs_pos, packed=self.pairs
        )
        (aligned,) = products.aligner(self.given, aligner)
        memory, saliency = self._encode(aligned, pairs_pos)
        saliencies = torch.split(saliency, len(self.mask))
        frames_bias = attention_bias(self.mask, dtype)
        outputs, references = products.decoder(
            self.given, memory[: len(source)], pos=pos, bias=frames_bias, rows=self.rows
        )
        logits, spans = self._heads(outputs, references)
        if targets is not None and targets.absent is not None:
            negatives = products.decoder(self.given, memory[len(source) :], pos=pos, bias=frames_bias, rows=self.rows)
            negative_logits, _ = self._heads(*negatives)
        return ModelOutput(
            logits=logits,
            spans=spans,
            saliency=saliencies[0],
            negative_saliency=None if targets is None else saliencies[1],
            word_logits=word_logits,
            moments=moments,
            text=text,
            text_mask=text_mask,
            negative_logits=negative_logits,
        )

    def _video(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return each query's projected frames (N, d), and the projected videos (V, T, d) for SS-MESM.

        In training both have their own dropout. Without dropout a video is projected once for all its queries.
        """
        videos, projection = self.inputs.video, self.model.video_projection
        flat, count = videos.flatten(0, 1), math.prod(videos.shape[:2])
        if not self.model.training:
            projected = self.given.project(projection, flat)
            return projected.index_select(0, source), projected.view(*videos.shape[:2], -1)
        if self.model.segment_sentence is None:
            video = self.given.project(projection, flat.index_select(0, source))
            return video, video.new_zeros(0)
        rows = torch.cat([source, torch.arange(count, device=source.device)])
        video, context = torch.split(self.given.project(projection, flat.index_select(0, rows)), [len(source), count])
        return video, context.view(*videos.shape[:2], -1)

    def _words(self) -> tuple[Tensor, Tensor]:
        """Return the projected words (Q, W, d), and in training with FW-MESM those to reconstruct (Q·W, d).

        Of these, the token for unknown words and the token for masked words are in place of such words.
        """
        words, frame_word, projection = self.inputs.words, self.model.frame_word, self.model.text_projection
        if self.targets is None or frame_word is None:
            return self.given.project(projection, words), words.new_zeros(0)
        tokens = frame_word.unknown_token.unsqueeze(0), frame_word.masked_token.unsqueeze(0)
        projected = self.given.project(projection, torch.cat([words.flatten(0, 1), *tokens]))
        unknown = math.prod(words.shape[:2])  # the row of its token, before that of the token for masked words
        rows = torch.arange(unknown, device=words.device).masked_fill(self.targets.unknown_words.flatten(), unknown)
        rows = rows.masked_fill(self.targets.masked_words.flatten(), unknown + 1)
        return projected[:unknown].view(*words.shape[:2], -1), projected.index_select(0, rows)

    def _reconstruction(self, frames: Tensor) -> Tensor | None:
        """Return SS-MESM's reconstructions (Q, d), or None without it. frames: (V, T, d) the projected videos."""
        module, products, inputs = self.model.segment_sentence, self.products.segment_sentence, self.inputs
        if module is None or products is None:
            return None
        mask, index = inputs.video_mask, inputs.video_index
        if inputs.context is not None and inputs.context_mask is not None and inputs.context_index is not None:
            frames = frames.flatten(0, 1).index_select(0, inputs.context.flatten()).view(*inputs.context.shape, -1)
            mask, index = inputs.context_mask, inputs.context_index
        # Sentences with the same context are one item of attention. Without dropout they do not differ.
        places = inputs.sentence_mask.shape[1] if self.model.training else 1
        sentences = module.masked_sentence.expand(len(mask) * places, -1)
        self.given.weights.sum_together(products.summed, rows=len(sentences))
        bias = attention_bias(mask, self.given.weights.dtype)
        (found,) = products(self.given, Stream(sentences, frames, frames, bias))
        place = inputs.sentence if self.model.training else index
        return unit(found.index_select(0, place))

    def _twice(self, x: Tensor) -> Tensor:
        """Return ``x`` for the positives and again for the negatives."""
        return x if self.targets is None else torch.cat([x, x])

    def _with_negatives(self, x: Tensor) -> Tensor:
        """Return ``x`` (Q, ...) followed by the ``x`` of each negative query."""
        return x if self.targets is None else torch.cat([x, x.index_select(0, self.targets.negative_query)])

    def _with_negative_texts(self, x: Tensor) -> Tensor:
        """Return ``x`` (Q, R + W, ...) of the texts followed by the ``x`` of the negatives' texts."""
        if self.targets is None or self.targets.absent is None:
            return self._with_negatives(x)
        negative = x.index_select(0, self.targets.negative_query)
        return torch.cat([x, with_reconstruction_of(x, negative, words=self.inputs.words.shape[1])])

    def _positions(self, words: Tensor) -> Tensor | None:
        """Return the learned positions of words (Q, W, d), or None for zeros."""
        positions = self.model.word_positions
        return None if positions is None else word_positions(self.given.kernels, positions, words)

    def _words_pos(self, words: Tensor, both_pos: Tensor | None) -> Tensor | None:
        """Return the positions of words, followed by those of the negatives' words, as in ``Mesm._negative``."""
        own = self._positions(words)
        if own is None or both_pos is None:
            return None
        own = F.pad(own, (0, 0, both_pos.shape[1] - own.shape[1], 0))
        if self.targets is not None and self.targets.absent is not None:
            return self._with_negatives(own)
        return torch.cat([own, both_pos[len(own) :]])

    def _encode(self, video: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Return the memory (2N, d) and the saliency (2Q, T)."""
        model, rows = self.model, self.pairs
        x = torch.cat([model.global_token.expand(rows.batch, -1), video])
        pos = torch.cat([model.global_pos.expand(rows.batch, -1), pos])
        bias = attention_bias(F.pad(self._twice(self.mask), (1, 0), value=False), self.given.weights.dtype)
        with_token = rows.with_token()
        for layer in self.products.encoder:
            x = layer(self.given, x, pos=pos, bias=bias, rows=with_token)
        token, memory = torch.split(x, [rows.batch, len(video)])
        frames, memory = self.given.product_and_input(model.saliency_frames, memory)
        token = self.given.weights.product(model.saliency_global, token)
        saliency = rows.pad(frames) @ token.unsqueeze(-1)  # (2Q, T, 1)
        return memory, saliency.squeeze(-1) / math.sqrt(model.dim)

    def _heads(self, outputs: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and spans, (L, Q, N, 2) each, of outputs (L, Q, N, d) and references (L, Q, N, 2)."""
        weights = self.given.weights
        _, *layers = parts(self.model.span_head.layers, nn.Linear)
        hidden, logits = torch.split(weights.product(self.products.heads, outputs), [outputs.shape[-1], 2], dim=-1)
        for layer in layers:
            hidden = weights.product(layer, F.relu(hidden))
        return logits, refined(hidden, references)

    def _moments(self, x: Tensor, targets: Targets) -> Tensor:
        """Return the frames (Q, C, d) of each query's moment, of packed frames (N, d)."""
        first = self.rows.place.view(len(self.mask), -1)[:, :1]  # the row of each query's first frame
        rows = x.index_select(0, (first + targets.moment_frames).flatten())
        return rows.view(*targets.moment_frames.shape, -1)

    def _to_moments(
        self, masked: Tensor, words: Tensor, moments: Tensor, moments_pos: Tensor, targets: Targets
    ) -> Stream:
        """Return the masked words (Q·W, d) that attend to the frames of moments (Q, C, d), with their positions."""
        dtype, words_pos = self.given.weights.dtype, self._positions(words)
        return Stream(
            masked,
            (moments + moments_pos).to(dtype),
            moments.to(dtype),
            attention_bias(targets.moment_mask, dtype),
            pos=None if words_pos is None else words_pos.flatten(0, 1),
            block=RECONSTRUCT,
        )

    def _word_logits(self, reconstructed: Tensor, *, shape: torch.Size) -> Tensor | None:
        """Return the logits (Q, W, classes) of words (Q·W, d); shape: that of the words, (Q, W, d)."""
        module = self.model.frame_word
        if module is None:
            return None
        hidden = self.given.projection(module.head.hidden, reconstructed)
        return self.given.weights.product(module.head.output, hidden).view(*shape[:2], -1)
