"""What the data pipeline asks of a frozen text encoder, and the normalisation that encoders share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from mesm_core.errors import TextError
from mesm_core.types import TextFeatures, Words

TEXT_EPS = 1e-5
Item = TypeVar("Item")


class TextEncoder(Protocol):
    """Turns a sentence into word vectors and into the labels of masked-word reconstruction."""

    @property
    def classes(self) -> int:
        """Number of classes of masked-word reconstruction."""
        ...

    def words(self, sentence: str) -> Words:
        """Return the sentence's tokens with labels and weights.

        Raises:
            TextError: the sentence has no words.
        """
        ...

    def features(self, sentence: str) -> TextFeatures:
        """Return the sentence's word vectors and its own vector; as many words as ``words`` gives.

        Raises:
            TextError: the sentence has no words.
        """
        ...

    def prepare(self, sentences: Iterable[str], progress: Callable[[int], None] | None = None) -> None:
        """Make ready to encode these sentences, where that is worth doing together.

        Args:
            progress: called with the number of sentences that are newly done.
        """
        ...

    def known_words(self, sentence: str) -> dict[str, bool]:
        """Return the sentence's words in order, and whether the encoder has a vector for each.

        Empty for an encoder that has no unknown words.

        Raises:
            TextError: the sentence has no words.
        """
        ...

    def state(self) -> Mapping[str, Any]:
        """Return all that is needed to build the encoder again, as tensors and JSON-able values."""
        ...


def normalise(vectors: np.ndarray, *, eps: float = TEXT_EPS) -> np.ndarray:
    """Return (..., D) vectors scaled to length 1 over the last axis; shorter than ``eps`` are divided by it.

    >>> normalise(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: np.ndarray = vectors / np.maximum(length, eps)
    return scaled


def mean_then_normalise(words: np.ndarray) -> TextFeatures:
    """Return (w, Dt) raw word vectors as features: the sentence is their mean, then all are normalised.

    Source: docs/model.md, "Words and sentence", CLIP and GloVe table.
    """
    words = words.astype(np.float32)
    return TextFeatures(words=normalise(words), sentence=normalise(words.mean(axis=0)))


def spoken(known: Mapping[str, bool]) -> dict[str, bool]:
    """Return the tokens that a person would call words: neither punctuation nor what the tokenizer cuts off a word.

    Where no token is one, all are returned.

    >>> spoken({"he": True, "'s": False, "xyzzy": False, ".": False})
    {'he': True, 'xyzzy': False}
    >>> spoken({"?!": False})
    {'?!': False}
    """
    words = {
        token: has
        for token, has in known.items()
        if any(map(str.isalnum, token)) and not token.startswith("'") and token != "n't"
    }
    return words or dict(known)


def refuse_empty(sentence: str) -> None:
    """Raise TextError where the sentence holds nothing but white space."""
    if not sentence.strip():
        raise TextError(
            "The query is empty.", hint='Describe the moment in a sentence, e.g. "a person opens the door".'
        )


def in_batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield ``size`` items at a time.

    >>> list(in_batches([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    for first in range(0, len(items), size):
        yield items[first : first + size]
