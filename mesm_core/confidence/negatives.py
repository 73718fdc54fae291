"""Queries without an answer, chosen by a fixed seed: sentences of other videos, and sentences of a shipped list."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib import resources

import numpy as np

from mesm_core.text.near_duplicates import Described
from mesm_core.types import Query

SEED = 0
"""Seed of the halves and of the negatives. A calibration and its report are comparable only if they share it."""


@dataclass(frozen=True)
class Questions:
    """The questions of one half of a split: its ``real`` queries, and queries that have no answer, of both kinds.

    ``in_domain``: sentences about other videos; ``out_of_domain``: sentences of the shipped list. They are about the
    videos of the real queries, and have neither windows nor an id.
    """

    real: tuple[Query, ...]
    in_domain: tuple[Query, ...]
    out_of_domain: tuple[Query, ...]


def questions_of_halves(queries: Sequence[Query], *, seed: int = SEED) -> tuple[Questions, Questions]:
    """Return the questions of the half that a calibration is fitted on, and those of the half that it is tested on.

    Half of the videos, and half of the shipped sentences, are in the first half; they are chosen by hash. Videos of the
    same source are in the same half.

    Args:
        queries: with windows; their order does not matter.
    """
    groups = halves({query.group for query in queries}, seed=seed)
    shipped = halves(out_of_domain_sentences(), seed=seed)
    fit, report = (
        _with_negatives([query for query in queries if query.group in names], sorted(sentences), seed=[seed, number])
        for number, (names, sentences) in enumerate(zip(groups, shipped, strict=True))
    )
    return fit, report


def halves(names: Collection[str], *, seed: int = SEED) -> tuple[frozenset[str], frozenset[str]]:
    """Divide names into two halves by a bit of their hash, so that the half of a name does not depend on the others.

    >>> [sorted(half) for half in halves(["a", "b", "c", "d"])]
    [['b', 'c'], ['a', 'd']]
    """
    second = frozenset(name for name in names if _hash(f"{seed}:{name}")[0] % 2)
    return frozenset(names) - second, second


def video_hash(name: str) -> str:
    """Return the hash by which a calibration remembers a video, so that a checkpoint does not tell names.

    >>> video_hash("s30-d52")
    'cd22f0429cab5237'
    """
    return _hash(name)[:8].hex()


def _hash(text: str) -> bytes:
    return sha256(text.encode(errors="surrogatepass")).digest()


def _with_negatives(queries: Sequence[Query], shipped: Sequence[str], *, seed: Sequence[int]) -> Questions:
    """Return queries with at most one negative of each kind for each, about the same video."""
    ordered = sorted(queries, key=lambda query: (query.vid, query.sentence, query.start))
    rng = np.random.default_rng(seed)
    described = Described(ordered)
    in_domain, out_of_domain = [], []
    for query in ordered:
        for other in rng.permutation(len(ordered)).tolist():
            same = ordered[other].group == query.group
            if not same and not described.may_show(query.group, ordered[other].sentence):
                in_domain.append(_without_answer(query, ordered[other].sentence))
                break
        out_of_domain.append(_without_answer(query, shipped[int(rng.integers(len(shipped)))]))
    return Questions(tuple(ordered), tuple(in_domain), tuple(out_of_domain))


@cache
def out_of_domain_sentences() -> tuple[str, ...]:
    """Return the shipped sentences: events that videos of kitchens, homes and daily life do not show."""
    text = (resources.files("mesm_core.confidence") / "out_of_domain.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _without_answer(query: Query, sentence: str) -> Query:
    return replace(query, qid=None, sentence=sentence, windows=(), highlights=None, repaired=False)
