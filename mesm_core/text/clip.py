"""CLIP's frozen text transformer, and the text encoder that uses it (Radford et al. 2021)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mesm_core.errors import TextError, listing
from mesm_core.model.attention import MultiHeadAttention
from mesm_core.model.weights import hash_weights
from mesm_core.text.cache import TextCache
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.encoder import in_batches, refuse_empty, text_features
from mesm_core.text.words import Tagger
from mesm_core.types import TextFeatures, Words

HEAD_WIDTH = 64
BATCH = 128


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), the activation of OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, the shape of ``x``."""
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class ResidualBlock(nn.Module):
    """Pre-norm causal self-attention and a feed-forward of four times the width."""

    def __init__(self, *, width: int, heads: int, activation: nn.Module) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(dim=width, heads=heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "gelu": activation, "c_proj": nn.Linear(4 * width, width)}
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (Q, L, width) of (Q, L, width)."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, key_mask=None, causal=True)
        hidden = self.mlp["gelu"](self.mlp["c_fc"](self.ln_2(x)))
        out: Tensor = x + self.mlp["c_proj"](hidden)
        return out


class ClipTextTransformer(nn.Module):
    """CLIP's text tower; its parameters have OpenAI's names.

    Args:
        vocabulary: number of tokens; context: longest sequence; width, layers, heads: of the transformer.
        activation: ``quick_gelu`` (OpenAI's weights) or ``gelu`` (most of open_clip's).
    """

    def __init__(
        self, *, vocabulary: int, context: int, width: int, layers: int, heads: int, activation: str = "quick_gelu"
    ) -> None:
        super().__init__()
        make = ACTIVATIONS[activation]
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context, width))
        blocks = [ResidualBlock(width=width, heads=heads, activation=make()) for _ in range(layers)]
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*blocks)})
        self.ln_final = nn.LayerNorm(width)

    @property
    def layers(self) -> int:
        """Number of transformer blocks."""
        return len(list(self.transformer["resblocks"].children()))

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.positional_embedding.shape[1])

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self.token_embedding.weight.shape[0])

    @property
    def context(self) -> int:
        """Length of the longest sequence."""
        return int(self.positional_embedding.shape[0])

    def forward(self, ids: Tensor) -> Tensor:
        """Return the hidden states (Q, L, width) of token ids (Q, L) after the final LayerNorm, unprojected.

        Attention is causal, so padding after a sentence does not affect it.
        """
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        out: Tensor = self.ln_final(self.transformer["resblocks"](x))
        return out

    @classmethod
    def from_weights(
        cls, weights: Mapping[str, Tensor], *, heads: int | None = None, activation: str = "quick_gelu"
    ) -> ClipTextTransformer:
        """Return the transformer of OpenAI-named weights, in evaluation mode and float32.

        Raises:
            TextError: the weights are not a text tower: one is missing, of another shape, NaN or infinite, or
                ``heads`` does not divide the width.
        """
        position, token = (weights.get(name) for name in ("positional_embedding", "token_embedding.weight"))
        if position is None or token is None or position.ndim != 2 or token.ndim != 2 or not position.numel():
            raise _no_encoder("the token or position embeddings are missing, or no matrices")
        context, width = position.shape
        heads = heads or max(width // HEAD_WIDTH, 1)
        if heads < 1 or width % heads:
            raise _no_encoder(f"{heads} heads do not divide the width {width}")
        if activation not in ACTIVATIONS:
            raise _no_encoder(f"the activation {activation[:40]!r} is none of {', '.join(ACTIVATIONS)}")
        layers = _count_layers(weights)
        for number in range(layers):  # before anything is allocated for that many layers of that width
            _check(weights, f"transformer.resblocks.{number}.attn.in_proj_weight", (3 * width, width))
        model = cls(
            vocabulary=len(token), context=context, width=width, layers=layers, heads=heads, activation=activation
        )
        expected = model.state_dict()
        for name, value in expected.items():
            _check(weights, name, value.shape)
        taken = {name: weights[name].float().contiguous() for name in expected}
        wrong = [name for name, value in taken.items() if not bool(torch.isfinite(value).all())]
        if wrong:
            raise _no_encoder(f"{len(wrong)} of {len(taken)} tensors hold NaN or infinity, first {wrong[0]}")
        model.load_state_dict(taken)
        return model.eval().requires_grad_(False)


def _check(weights: Mapping[str, Tensor], name: str, shape: Sequence[int]) -> None:
    given = weights.get(name)
    if given is None or given.shape != tuple(shape):
        problem = "missing" if given is None else f"of the shape {tuple(given.shape)}, not {tuple(shape)}"
        raise _no_encoder(f"{name} is {problem}")
    if not given.is_floating_point():
        raise _no_encoder(f"{name} holds {given.dtype}, not floating-point numbers")


def _count_layers(weights: Mapping[str, Tensor]) -> int:
    """Return the number of blocks in the weights.

    Raises:
        TextError: there are none, or they are not numbered consecutively from 0.
    """
    numbers = {name.split(".")[2] for name in weights if name.startswith("transformer.resblocks.")}
    if not numbers or numbers != set(map(str, range(len(numbers)))):
        raise _no_encoder(f"its blocks must be numbered from 0, but are {listing(sorted(numbers)) or 'none'}")
    return len(numbers)


def _no_encoder(why: str) -> TextError:
    return TextError(f"These weights are not a CLIP text encoder: {why}.", hint="Is the file complete, and CLIP's?")


@dataclass(frozen=True, slots=True)
class KnownTower:
    """The properties of a text transformer, known from an earlier run; ``load`` reads its weights."""

    load: Callable[[], ClipTextTransformer]
    weights_hash: str
    width: int
    vocabulary: int
    context: int


class ClipText:
    """The CLIP text encoder (docs/model.md, "Words and sentence"); each sentence is encoded once.

    Args:
        model: frozen transformer, or a ``KnownTower`` that is loaded when a sentence is not in the cache.
        device: device of the transformer; dtype: float32, or float16 on CUDA.
        tokenizer: BPE tokenizer; label_ids: token ids that are classes of masked-word reconstruction, most frequent
            first.
        tagger: weights tokens; max_words: maximum number of tokens per sentence, including start and end.
        cache: cache of encoded sentences, or None; path: path of the weights, for the checkpoint.
    """

    def __init__(
        self,
        *,
        model: ClipTextTransformer | KnownTower,
        tokenizer: ClipTokenizer,
        label_ids: Sequence[int],
        tagger: Tagger,
        max_words: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        cache: TextCache | None = None,
        path: Path | None = None,
    ) -> None:
        self.label_ids = tuple(label_ids)
        self.weights_hash = model.weights_hash if isinstance(model, KnownTower) else hash_weights(model)
        self.path = path
        self._tower, self._width = model, model.width
        self._device, self._dtype = device, dtype
        self._tokenizer = tokenizer
        self._labels = {token: label for label, token in enumerate(self.label_ids)}
        self._tagger = tagger
        self._max_words = max_words
        self._cache = cache
        self._known: dict[str, np.ndarray] = {}

    @property
    def classes(self) -> int:
        """Number of masked-word classes: the label tokens, unknown, start and end."""
        return len(self.label_ids) + 3

    @cached_property
    def _model(self) -> ClipTextTransformer:
        model = self._tower.load() if isinstance(self._tower, KnownTower) else self._tower
        return model.to(device=self._device, dtype=self._dtype)

    def ids(self, sentence: str) -> list[int]:
        """Return the token ids of a sentence, including start and end, truncated to ``max_words``.

        Raises:
            TextError: the sentence is empty.
        """
        refuse_empty(sentence)
        inner = self._tokenizer.encode(sentence)[: self._max_words - 2]
        return [self._tokenizer.start, *inner, self._tokenizer.end]

    def words(self, sentence: str) -> Words:
        """Return the sentence's tokens with masked-word labels and weights.

        Raises:
            TextError: the sentence is empty.
        """
        refuse_empty(sentence)
        inner = self._tokenizer.encode(sentence)
        pieces = [self._tokenizer.piece(token) for token in inner]
        limit = self._max_words - 2
        unknown = len(self.label_ids)
        labels = [self._labels.get(token, unknown) for token in inner[:limit]]
        weights = [0, *self._tagger.weights(pieces)[:limit], 0]
        array = np.array([unknown + 1, *labels, unknown + 2], np.int64)
        return Words(
            tokens=("<|startoftext|>", *pieces[:limit], "<|endoftext|>"),
            labels=array,
            unknown=array == unknown,
            weights=np.array(weights, np.int64),
        )

    def prepare(self, sentences: Iterable[str], progress: Callable[[int], None] | None = None) -> None:
        """Encode the sentences that are neither in memory nor in the cache, in batches of similar length."""
        wanted = [s for s in dict.fromkeys(sentences) if s not in self._known]
        if self._cache is not None:
            stored = self._cache.read({s: self._key(s) for s in wanted}, width=self._width)
            self._known |= stored
            if progress is not None:
                progress(len(stored))
            wanted = [s for s in wanted if s not in stored]
        for part in in_batches(sorted(wanted, key=lambda s: len(self.ids(s))), BATCH):
            encoded = dict(zip(part, self._encode(part), strict=True))
            self._known |= encoded
            if self._cache is not None:
                self._cache.write({self._key(s): vectors for s, vectors in encoded.items()})
            if progress is not None:
                progress(len(part))

    def features(self, sentence: str) -> TextFeatures:
        """Return the word vectors of a sentence.

        Raises:
            TextError: the sentence is empty.
        """
        if sentence not in self._known:
            self.prepare([sentence])
        return text_features(self._known[sentence])

    def known_words(self, sentence: str) -> dict[str, bool]:
        """Return an empty dict: every word consists of known byte pairs."""
        refuse_empty(sentence)
        return {}

    def state(self) -> Mapping[str, Any]:
        """Return the state for a checkpoint: path and hash of the encoder, and the label tokens."""
        return {
            "path": None if self.path is None else str(self.path.resolve()),
            "hash": self.weights_hash,
            "label_ids": list(self.label_ids),
        }

    @torch.inference_mode()
    def _encode(self, sentences: Sequence[str]) -> list[np.ndarray]:
        ids = [self.ids(sentence) for sentence in sentences]
        longest = max(map(len, ids))
        table = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=self._device)
        hidden = self._model(table).to(torch.float16).cpu().numpy()
        if not np.isfinite(hidden).all():
            where = "" if self.path is None else f" {self.path}"
            raise TextError(
                f"The CLIP text encoder{where} gives NaN or infinity.",
                hint="Its weights are damaged, or do not fit float16: try text.clip_dtype=float32.",
            )
        return [row[: len(tokens)].copy() for row, tokens in zip(hidden, ids, strict=True)]

    def _key(self, sentence: str) -> bytes:
        return hashlib.sha256(f"{self.weights_hash} {self._max_words} {sentence}".encode(errors="replace")).digest()
