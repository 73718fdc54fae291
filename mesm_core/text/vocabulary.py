"""The vocabulary of a glove.pkl: words with counts and vectors, read without running code, and stored as HDF5."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mesm_core import hdf5
from mesm_core.errors import TextError
from mesm_core.files import library_output
from mesm_core.inputs import has_surrogates, link_target, open_hdf5, reading, reason
from mesm_core.text.encoder import refuse_empty, spoken, text_features
from mesm_core.text.glove import glove_vectors
from mesm_core.text.words import Tagger
from mesm_core.types import TextFeatures, Words
from mesm_core.unpickling import load_arrays

PAD_WORD = "<PAD>"
_HINT = "`mesm prepare glove` writes it again."


@dataclass(frozen=True)
class Vocabulary:
    """Words in order of first appearance, the count of each, and their (n, Dt) float32 vectors."""

    words: tuple[str, ...]
    counts: tuple[int, ...]
    vectors: np.ndarray

    def most_common(self, number: int) -> list[str]:
        """Return the most frequent words, with ties in order of first appearance."""
        return [word for word, _ in Counter(dict(zip(self.words, self.counts, strict=True))).most_common(number)]


def build_vocabulary(path: Path, sentences: Iterable[Iterable[str]], *, dim: int) -> Vocabulary:
    """Return the vocabulary of tokenised sentences, restricted to words in a GloVe text file.

    Raises:
        TextError: the file is missing, damaged, of another width, or has none of the words.
    """
    counts = Counter(word for tokens in sentences for word in tokens)
    found = glove_vectors(path, counts, dim=dim)
    words = [word for word in counts if word in found]
    return Vocabulary(tuple(words), tuple(counts[w] for w in words), np.stack([found[w] for w in words]))


def write_vocabulary(path: Path, vocabulary: Vocabulary, *, overwrite: bool = False) -> None:
    """Write a vocabulary as HDF5.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    with library_output(path, overwrite=overwrite) as output, h5py.File(output, "w") as file:
        file["words"] = np.array([word.encode() for word in vocabulary.words], dtype=object)
        file["counts"] = np.array(vocabulary.counts, np.int64)
        file["vectors"] = vocabulary.vectors
        file.attrs["format"] = "mesm-vocabulary"


def read_vocabulary(path: Path, *, dim: int | None = None) -> Vocabulary:
    """Read a glove.pkl, or a file written by ``mesm prepare glove``. No code from the file is run.

    Args:
        dim: required width of the vectors, or None for any width.

    Raises:
        TextError: the file is missing, damaged, or of another kind.
    """
    if not path.is_file():
        raise TextError(
            f"No vocabulary file at {path}.",
            hint="Give --glove FILE (the published glove.pkl), or build one with `mesm prepare glove`.",
        )
    path = link_target(path)
    ours = path.suffix in {".h5", ".hdf5"}
    vocabulary = _read_hdf5(path) if ours else _from_pickle(load_arrays(path, error=TextError), path)
    _check(vocabulary, path)
    width = vocabulary.vectors.shape[1]
    if dim not in (None, width):
        raise TextError(
            f"The vectors in {path} are {width} wide, but model.text_dim is {dim}.",
            hint=f"Use --set model.text_dim={width}, or give another vocabulary.",
        )
    return vocabulary


class VocabularyText:
    """The glove.pkl text encoder (docs/model.md, "Words and sentence"): unknown words are dropped.

    Args:
        vocabulary: words, counts and vectors.
        vocab_size: number of most frequent words that are classes of masked-word reconstruction.
        tagger: splits sentences and weights words.
        max_words: maximum number of known words per sentence; further ones are dropped.

    Raises:
        TextError: the vocabulary is smaller than ``vocab_size``.
    """

    def __init__(self, *, vocabulary: Vocabulary, vocab_size: int, tagger: Tagger, max_words: int) -> None:
        if len(vocabulary.words) < vocab_size:
            raise TextError(
                f"The vocabulary has {len(vocabulary.words)} words, fewer than text.vocab_size = {vocab_size}.",
                hint=f"Use --set text.vocab_size={len(vocabulary.words)}.",
            )
        self.vocabulary = vocabulary
        self._rows = {word: row for row, word in enumerate(vocabulary.words)}
        self._labels = {word: label for label, word in enumerate(vocabulary.most_common(vocab_size))}
        self._tagger = tagger
        self._max_words = max_words

    @property
    def classes(self) -> int:
        """Number of masked-word classes: the label words and "unknown"."""
        return len(self._labels) + 1

    def prepare(self, sentences: Iterable[str], progress: Callable[[int], None] | None = None) -> None:
        """Do nothing; looking up words needs no preparation."""

    def words(self, sentence: str) -> Words:
        """Return the known words of a sentence with labels and weights, or one unknown word if there are none.

        Raises:
            TextError: the sentence is empty.
        """
        refuse_empty(sentence)
        raw = self._tagger.tokens(sentence)
        weighed = zip(raw, self._tagger.weights(raw), strict=True)
        known = [(token.lower(), weight) for token, weight in weighed if token.lower() in self._rows]
        known = known[: self._max_words] or [("", 0)]
        unknown = len(self._labels)
        labels = np.array([self._labels.get(word, unknown) for word, _ in known], np.int64)
        weights = np.array([weight for _, weight in known], np.int64)
        return Words(tuple(word for word, _ in known), labels, labels == unknown, weights)

    def features(self, sentence: str) -> TextFeatures:
        """Return the known words' vectors, normalised.

        Raises:
            TextError: the sentence is empty.
        """
        rows = [self._rows.get(word, -1) for word in self.words(sentence).tokens]
        vectors = self.vocabulary.vectors[rows] if rows != [-1] else np.zeros((1, self.vocabulary.vectors.shape[1]))
        return text_features(vectors)

    def known_words(self, sentence: str) -> dict[str, bool]:
        """Return the sentence's words in order, and whether the vocabulary has each.

        Raises:
            TextError: the sentence is empty.
        """
        refuse_empty(sentence)
        tokens = [token.lower() for token in self._tagger.tokens(sentence)]
        return spoken({token: token in self._rows for token in tokens})

    def state(self) -> Mapping[str, Any]:
        """Return the vocabulary for a checkpoint."""
        import torch

        return {
            "words": list(self.vocabulary.words),
            "counts": list(self.vocabulary.counts),
            "vectors": torch.from_numpy(self.vocabulary.vectors),
        }


def _from_pickle(content: Any, path: Path) -> Vocabulary:
    try:
        ids, vectors, counter = content["w2id"], content["id2vec"], content["counter"]
        words = [word for word in sorted(ids, key=lambda w: ids[w]) if word != PAD_WORD]
        table = np.stack([np.asarray(vectors[ids[word]], np.float32) for word in words])
        counts = np.array([int(counter[word]) for word in words], np.int64)
        return Vocabulary(tuple(words), tuple(counts.tolist()), table)
    except Exception as error:  # the dict may contain anything
        raise TextError(
            f"{path} is not a glove.pkl: {type(error).__name__} {reason(error)}.",
            hint="It has the keys w2id, id2vec and counter.",
        ) from error


def _read_hdf5(path: Path) -> Vocabulary:
    kind = "a vocabulary file"
    with open_hdf5(path, error=TextError, kind=kind) as file, reading(path, TextError, hint=_HINT):
        counts, vectors = file["counts"], file["vectors"]
        if not file["words"].shape or not len(file["words"]) == len(counts) == len(vectors):
            raise TextError(f"{path} is not a vocabulary file: its parts differ in length.", hint=_HINT)
        hdf5.check_size(vectors.shape, where=f"'vectors' in {path}")
        words = tuple(word.decode() for word in file["words"][()])
        return Vocabulary(words, tuple(map(int, counts[()])), hdf5.as_float32(vectors[()]))


def _check(vocabulary: Vocabulary, path: Path) -> None:
    words, counts, vectors = vocabulary.words, vocabulary.counts, vocabulary.vectors
    if not words or not all(isinstance(word, str) for word in words) or min(counts) < 0:
        raise TextError(f"{path} is not a vocabulary: its words must be texts with counts.", hint=_HINT)
    if any(has_surrogates(word) or "\0" in word for word in words):
        raise TextError(f"{path}: a word holds NUL or half a surrogate pair, which no text has.", hint=_HINT)
    if vectors.ndim != 2 or len(vectors) != len(words) or not vectors.shape[1]:
        raise TextError(f"{path}: vectors of the shape {vectors.shape} for {len(words)} words.", hint=_HINT)
    if not np.isfinite(vectors).all():
        word = words[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise TextError(f"{path}: the vector of '{word}' holds NaN or infinity.", hint=_HINT)
