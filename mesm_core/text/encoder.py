"""The interface of frozen text encoders, and functions that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from mesm_core.arrays import normalise
from mesm_core.errors import TextError
from mesm_core.types import TextFeatures, Words

Item = TypeVar("Item")


class TextEncoder(Protocol):
    """Encodes sentences as word vectors, and gives the labels of masked-word reconstruction."""

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
        """Return the word vectors of a sentence, one for each token of ``words``.

        Raises:
            TextError: the sentence has no words.
        """
        ...

    def prepare(self, sentences: Iterable[str], progress: Callable[[int], None] | None = None) -> None:
        """Prepare to encode these sentences, for encoders that are faster on batches.

        Args:
            progress: called with the number of sentences done since the last call.
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
        """Return everything needed to restore the encoder, as tensors and JSON-compatible values."""
        ...


def text_features(words: np.ndarray) -> TextFeatures:
    """Return features of (w, Dt) raw word vectors: float32, normalised to unit length."""
    return TextFeatures(normalise(words.astype(np.float32)))


def spoken(known: Mapping[str, bool]) -> dict[str, bool]:
    """Return the tokens that are words: not punctuation, and not clitics that the tokenizer split off.

    If no token is a word, all tokens are returned.

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
    """Raise TextError if the sentence is empty or only white space."""
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
