"""GloVe word vectors from their text files, and the text encoder that looks words up in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.errors import TextError
from mesm_core.inputs import byte_lines, open_zip, stream_lines
from mesm_core.text.encoder import refuse_empty, spoken, text_features
from mesm_core.text.words import Tagger
from mesm_core.types import TextFeatures, Words

UNKNOWN = 1
FIRST_WORD = 2
BOM = b"\xef\xbb\xbf"
KEPT_SENTENCES = 65_536
"""Sentences whose tokens are kept, more than any of the datasets has."""


@dataclass(frozen=True)
class GloveTable:
    """Vectors of a vocabulary: row 0 is ``<PAD>``, row 1 ``<UNK>``, row i + 2 the i-th word.

    ``words``: the vocabulary, sorted; ``vectors``: (len(words) + 2, Dt) float32. Words missing in the GloVe file
    have the vector of ``<UNK>``.
    """

    words: tuple[str, ...]
    vectors: np.ndarray


def read_glove(path: Path, words: Iterable[str], *, dim: int, seed: int) -> GloveTable:
    """Read the vectors of the given words from a ``glove.6B.300d.txt``-style file (plain, .gz or .zip).

    The vector of ``<UNK>`` is N(0, 1), drawn as in the published code: the first ``torch.randn`` after
    ``torch.manual_seed(seed)``.

    Raises:
        TextError: the file is missing, damaged, of another width than ``dim``, or has none of the words.
    """
    vocabulary = tuple(sorted(set(words)))
    rows = {word: index for index, word in enumerate(vocabulary, start=FIRST_WORD)}
    vectors = np.zeros((len(vocabulary) + FIRST_WORD, dim), np.float32)
    vectors[UNKNOWN] = _random_vector(dim, seed)
    found = glove_vectors(path, vocabulary, dim=dim)
    for word, vector in found.items():
        vectors[rows[word]] = vector
    vectors[[rows[word] for word in vocabulary if word not in found]] = vectors[UNKNOWN]
    return GloveTable(vocabulary, vectors)


def find_glove(path: Path) -> Path:
    """Return the path, or that of a compressed file if it is missing (``.gz`` or ``.zip``, added or as the suffix)."""
    # Unlike pathlib, os.path returns False for names that are too long.
    if os.path.exists(path):  # noqa: PTH110
        return path
    names = [name + ending for ending in (".gz", ".zip") for name in (path.name, path.stem)]
    return next((packed for name in names if os.path.isfile(packed := path.with_name(name))), path)  # noqa: PTH113


def glove_vectors(path: Path, words: Iterable[str], *, dim: int) -> dict[str, np.ndarray]:
    """Return the (dim,) float32 vectors of the words that a GloVe text file contains (plain, .gz or .zip).

    Raises:
        TextError: the file is missing, damaged, of another width than ``dim``, or has none of the words.
    """
    wanted = {word.encode(errors="replace"): word for word in words}
    found: dict[str, np.ndarray] = {}

    for number, line in enumerate(_lines(path), start=1):
        head, _, rest = line.partition(b" ")
        word = wanted.get(head.removeprefix(BOM) if number == 1 else head)
        if word is None or word in found:
            continue
        try:
            vector = np.array(rest.split(), dtype=np.float32)
        except ValueError:
            raise TextError(f"{path}, line {number}: '{word}' is not followed by numbers.") from None
        if vector.shape != (dim,):
            if number == 1 and vector.size == 1:
                continue  # a word2vec-style header: rows and width
            raise TextError(
                f"{path}, line {number}: a vector of {vector.size} numbers, but model.text_dim is {dim}.",
                hint=f"Use the {dim}-d GloVe file, or --set model.text_dim={vector.size}.",
            )
        if not np.isfinite(vector).all():
            raise TextError(f"{path}, line {number}: the vector of '{word}' holds NaN or infinity.")
        found[word] = vector
    if wanted and not found:
        raise TextError(f"{path} has none of the vocabulary's {len(wanted)} words.", hint="Is it a GloVe text file?")
    return found


def check_glove(path: Path, *, dim: int) -> None:
    """Check the existence and width of a GloVe text file by its first lines.

    Raises:
        TextError: the file is missing, cannot be read, or has another width than ``dim``.
    """
    # The first line may be a header of rows and width.
    first = list(islice(_lines(path), 2))
    width = len(first[-1].split()) - 1 if first else 0
    if width != dim:
        raise TextError(
            f"{path} has vectors of {width} numbers, but model.text_dim is {dim}.",
            hint=f"Use the {dim}-d GloVe file, or --set model.text_dim={width}.",
        )


class GloveText:
    """The GloVe-table text encoder (docs/model.md, "Words and sentence").

    Args:
        table: word vectors.
        label_words: the words that are classes of masked-word reconstruction, most frequent first.
        tagger: splits sentences and weights words.
        max_words: maximum number of words per sentence; further ones are dropped.
    """

    def __init__(self, *, table: GloveTable, label_words: Sequence[str], tagger: Tagger, max_words: int) -> None:
        self.table = table
        self.label_words = tuple(label_words)
        self._rows = {word: index for index, word in enumerate(table.words, start=FIRST_WORD)}
        self._labels = {word: label for label, word in enumerate(label_words)}
        self._tagger = tagger
        self._max_words = max_words
        # The words, the rows and the warnings of a query need the same tokens.
        self._tokens = lru_cache(maxsize=KEPT_SENTENCES)(tagger.tokens)

    @property
    def classes(self) -> int:
        """Number of masked-word classes: the label words and "unknown"."""
        return len(self.label_words) + 1

    def words(self, sentence: str) -> Words:
        """Return the sentence's lower-cased tokens with masked-word labels and weights.

        Raises:
            TextError: the sentence has no words.
        """
        refuse_empty(sentence)
        raw = self._tokens(sentence)
        tokens = tuple(token.lower() for token in raw[: self._max_words])
        unknown = len(self.label_words)
        labels = np.array([self._labels.get(token, unknown) for token in tokens], np.int64)
        weights = np.array(self._tagger.weights(raw)[: self._max_words], np.int64)
        return Words(tokens=tokens, labels=labels, unknown=labels == unknown, weights=weights)

    def prepare(self, sentences: Iterable[str], progress: Callable[[int], None] | None = None) -> None:
        """Load the resources needed to tokenise the sentences."""
        self._tagger.prepare(sentences)

    def ids(self, sentence: str) -> np.ndarray:
        """Return the table rows (w,) int64 of the sentence's words."""
        refuse_empty(sentence)
        tokens = self._tokens(sentence)[: self._max_words]
        return np.array([self._rows.get(token.lower(), UNKNOWN) for token in tokens], np.int64)

    def features(self, sentence: str) -> TextFeatures:
        """Return the word vectors of a sentence.

        Raises:
            TextError: the sentence has no words.
        """
        return text_features(self.table.vectors[self.ids(sentence)])

    def known_words(self, sentence: str) -> dict[str, bool]:
        """Return the words of a sentence in order, and whether each has a vector other than that of ``<UNK>``.

        Raises:
            TextError: the sentence has no words.
        """
        refuse_empty(sentence)
        vectors = self.table.vectors
        tokens = [token.lower() for token in self._tokens(sentence)[: self._max_words]]
        rows = {token: self._rows.get(token, UNKNOWN) for token in tokens}
        # A checkpoint does not list the words missing in its GloVe file, but they have the vector of <UNK>.
        return spoken({token: bool((vectors[row] != vectors[UNKNOWN]).any()) for token, row in rows.items()})

    def state(self) -> Mapping[str, Any]:
        """Return the table and the label words for a checkpoint."""
        import torch

        return {
            "words": list(self.table.words),
            "vectors": torch.from_numpy(self.table.vectors),
            "label_words": list(self.label_words),
        }


def _lines(path: Path) -> Iterator[bytes]:
    if not os.path.isfile(path):  # noqa: PTH113
        raise TextError(
            f"No GloVe file at {path}.",
            hint="Give --glove FILE (glove.6B.300d.txt, plain or .gz), or put it under the data folder.",
        )
    if path.suffix != ".zip":
        yield from byte_lines(path, what="GloVe file", error=TextError, hint="Is the download complete?")
        return
    with open_zip(path, error=TextError) as archive:
        members = [name for name in archive.namelist() if name.endswith(".txt")]
        wanted = [name for name in members if Path(name).stem == path.stem] or members
        if len(wanted) != 1:
            raise TextError(f"{path} holds {len(members)} text files.", hint="Unpack the one to use.")
        with archive.open(wanted[0]) as file:
            yield from stream_lines(file, path, TextError)


def _random_vector(dim: int, seed: int) -> np.ndarray:
    import torch

    return torch.randn(dim, generator=torch.Generator().manual_seed(seed)).numpy()
