"""Exceptions: every error that a user can cause is a MesmError, with a message that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MesmError(Exception):
    """An error caused by the user or by input data; the command line exits with code 2.

    Args:
        message: what is wrong, and where (file, line, key, video).
        hint: how to fix it; shown on a separate line.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(MesmError):
    """An unknown key, a value out of range, a file that is not a config."""


class DataError(MesmError):
    """Annotations that cannot be read or contradict themselves."""


class FeatureError(MesmError):
    """Video features that are missing, damaged, or do not fit."""


class TextError(MesmError):
    """Queries, vocabularies and word vectors that cannot be used."""


class CheckpointError(MesmError):
    """A checkpoint that is not ours, is damaged, or does not fit."""


class DeviceError(MesmError):
    """A requested device that does not exist."""


class OutputError(MesmError):
    """An output that already exists or cannot be written."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known word, or ``""``.

    >>> did_you_mean("tacoss", ["tacos", "charades"])
    " Did you mean 'tacos'?"
    >>> did_you_mean("miou", ["mIoU"])
    " Did you mean 'mIoU'?"
    >>> did_you_mean("zzz", ["tacos"])
    ''
    """
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(lower), n=1, cutoff=0.6)
    return f" Did you mean '{lower[near[0]]}'?" if near else ""


def count(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural.

    >>> count(1, "query"), count(2, "query"), count(0, "video"), count(1200, "day")
    ('1 query', '2 queries', '0 videos', '1200 days')
    """
    if number == 1:
        return f"1 {noun}"
    many = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"
    return f"{number} {many}"


def listing(items: Iterable[object], *, limit: int = 10) -> str:
    """Return up to ``limit`` items and how many more there are.

    >>> listing("abc", limit=2)
    'a, b … and 1 more (3 in all)'
    >>> listing("ab")
    'a, b'
    """
    words = [str(item) for item in items]
    shown = ", ".join(words[:limit])
    return shown if len(words) <= limit else f"{shown} … and {len(words) - limit} more ({len(words)} in all)"
