"""Cached sentence embeddings in CLIP's joint space; if all are cached, the network is not built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mesm_core.text.cache import TextCache
from mesm_core.text.encoder import refuse_empty

if TYPE_CHECKING:
    from mesm_core.text.clip_joint import ClipSentences


class KeptSentences:
    """Embeddings of ``ClipSentences``, cached on disk and shared by processes.

    Embeddings are rounded to float16 whether or not they come from the cache, so that results do not depend on it.

    Args:
        build: returns the encoder; called if a sentence is not in the cache, or if ``known`` is None.
        cache: the cache of embeddings, or None for no cache.
        known: (hash, width) of the weights from an earlier run, or None.
    """

    def __init__(
        self, build: Callable[[], ClipSentences], *, cache: TextCache | None, known: tuple[str, int] | None
    ) -> None:
        self._build = build
        self._cache = cache
        self._known = known
        self._encoder: ClipSentences | None = None

    @property
    def about(self) -> tuple[str, int]:
        """Hash of the weights, and width of the joint space."""
        if self._known is None:
            encoder = self._loaded()
            self._known = (encoder.weights_hash, encoder.width)
        return self._known

    @property
    def width(self) -> int:
        """Width of the joint space."""
        return self.about[1]

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        """Return (n, width) float32 embeddings of unit length, with the precision of float16.

        Raises:
            TextError: a sentence is empty, or the weights cannot be used; OutputError: the cache cannot be used.
        """
        for sentence in sentences:
            refuse_empty(sentence)
        weights, width = self.about
        keys = {sentence: _key(weights, sentence) for sentence in sentences}
        found = {} if self._cache is None else self._cache.read(keys, width=width)
        new = [sentence for sentence in keys if sentence not in found]
        if new:
            fresh = dict(zip(new, self._loaded().embed(new).astype(np.float16)[:, None], strict=True))
            if self._cache is not None:
                self._cache.write({keys[sentence]: vector for sentence, vector in fresh.items()})
            found |= fresh
        rows = [found[sentence][0] for sentence in sentences]
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, width), np.float32)

    def _loaded(self) -> ClipSentences:
        if self._encoder is None:
            self._encoder = self._build()
        return self._encoder


def _key(weights: str, sentence: str) -> bytes:
    return hashlib.sha256(f"joint {weights} {sentence}".encode(errors="replace")).digest()
