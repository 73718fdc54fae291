"""Which sentences may describe the same event, by their words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mesm_core.text.words import closed_class_words
from mesm_core.types import Query

SIMILAR = 0.5
"""Sentences that share more than this part of the shorter one's words are near-duplicates."""
_UNSPECIFIC = frozenset((
    "person", "persons", "people", "man", "men", "woman", "women", "guy", "lady", "boy", "girl",
    "someone", "somebody", "something", "thing", "is", "are", "was", "were", "be", "being", "been",
    "has", "have", "had", "do", "does", "doing", "there's", "here", "then", "also", "again",
))  # fmt: skip
_ENDINGS = ("ing", "ed", "es", "s")
_SHORTEST_STEM = 3


class Described:
    """What videos show according to their annotations.

    Args:
        queries: all sentences about the videos. Videos of the same group count as one.
    """

    def __init__(self, queries: Iterable[Query]) -> None:
        self._words: dict[str, frozenset[str]] = {}
        self._about: dict[str, list[frozenset[str]]] = {}
        for query in queries:
            self._about.setdefault(query.group, []).append(self._content_words(query.sentence))

    def may_show(self, group: str, sentence: str) -> bool:
        """Return whether a sentence is a near-duplicate of a sentence about the videos of a group."""
        words = self._content_words(sentence)
        return any(near_duplicates(words, own) for own in self._about.get(group, ()))

    def _content_words(self, sentence: str) -> frozenset[str]:
        if sentence not in self._words:
            self._words[sentence] = content_words(sentence)
        return self._words[sentence]


def near_duplicates(a: frozenset[str], b: frozenset[str]) -> bool:
    """Return whether two sentences may describe the same event, from their ``content_words``.

    They do if they share more than half of the words of the shorter one, or if one has no words to compare.

    >>> opens, shuts = content_words("A person opens the door."), content_words("The woman is opening a wide door")
    >>> near_duplicates(opens, shuts), near_duplicates(opens, content_words("person closes the door"))
    (True, False)
    """
    shorter = min(len(a), len(b))
    return shorter == 0 or len(a & b) > SIMILAR * shorter


def content_words(sentence: str) -> frozenset[str]:
    """Return the words of a sentence without closed-class words, words for people, and endings of inflection.

    >>> sorted(content_words("The persons are opening doors again."))
    ['door', 'open']
    """
    words = re.findall(r"[^\W_]+(?:'\w+)?", sentence.lower())
    closed = closed_class_words()
    return frozenset(_stem(word) for word in words if word not in closed and word not in _UNSPECIFIC)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word.removesuffix(ending).removesuffix("e")
    return word.removesuffix("e") if len(word) > _SHORTEST_STEM else word
