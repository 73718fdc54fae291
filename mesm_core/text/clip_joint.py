"""Sentence embeddings in the joint space of CLIP's text and image towers (Radford et al. 2021)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mesm_core.arrays import normalise
from mesm_core.errors import TextError
from mesm_core.model.weights import hash_weights
from mesm_core.text.clip import BATCH, ClipTextTransformer
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.encoder import in_batches, refuse_empty


class ClipSentences:
    """CLIP's sentence embedding: the projected hidden state of the end token.

    It differs from the sentence vector of the trained model, which is the mean of ``ClipText``'s unprojected word
    vectors, with sentences truncated to ``max_words``. Here they are truncated to CLIP's context of 77 tokens.

    Args:
        model: frozen transformer; projection: (width, out) float32; device: where they run, always in float32.
        path: path of the weights, for messages.
    """

    def __init__(
        self,
        *,
        model: ClipTextTransformer,
        projection: Tensor,
        tokenizer: ClipTokenizer,
        device: torch.device,
        path: Path | None = None,
    ) -> None:
        self.path = path
        self._model = model.to(device=device, dtype=torch.float32)
        self._projection = projection.to(device=device, dtype=torch.float32)
        self._tokenizer = tokenizer
        self._device = device
        self._known: dict[str, np.ndarray] = {}

    @property
    def width(self) -> int:
        """Width of the joint space."""
        return int(self._projection.shape[1])

    @property
    def weights_hash(self) -> str:
        """Hash of the transformer and the projection."""
        projection = self._projection.cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(hash_weights(self._model).encode() + projection).hexdigest()[:32]

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        """Return (n, width) float32 embeddings of length 1; each sentence is encoded once.

        Raises:
            TextError: a sentence is empty, or the weights give NaN or infinity.
        """
        for sentence in sentences:
            refuse_empty(sentence)
        wanted = [s for s in dict.fromkeys(sentences) if s not in self._known]
        # Sentences of like length are encoded together, so that little is padding.
        for part in in_batches(sorted(wanted, key=lambda s: len(self._ids(s))), BATCH):
            self._known |= dict(zip(part, self._encode(part), strict=True))
        rows = [self._known[sentence] for sentence in sentences]
        return np.stack(rows) if rows else np.zeros((0, self.width), np.float32)

    def _ids(self, sentence: str) -> list[int]:
        inner = self._tokenizer.encode(sentence)[: self._model.context - 2]
        return [self._tokenizer.start, *inner, self._tokenizer.end]

    @torch.inference_mode()
    def _encode(self, sentences: Sequence[str]) -> np.ndarray:
        ids = [self._ids(sentence) for sentence in sentences]
        longest = max(map(len, ids))
        table = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=self._device)  # (n, L)
        ends = torch.tensor([len(row) - 1 for row in ids], device=self._device)
        hidden = self._model(table)[torch.arange(len(ids), device=self._device), ends]  # (n, width)
        embedded = (hidden @ self._projection).cpu().numpy()  # (n, out)
        if not np.isfinite(embedded).all():
            where = "" if self.path is None else f" {self.path}"
            raise TextError(f"The CLIP text encoder{where} gives NaN or infinity.", hint="Its weights are damaged.")
        return normalise(embedded)
