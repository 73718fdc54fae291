"""Count files: word frequencies, which define the vocabulary of masked-word reconstruction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from mesm_core.errors import DataError, TextError
from mesm_core.inputs import link_target, read_text, shown, split_lines
from mesm_core.text.words import count_words

GLOVE_COUNTS = "GloVe_tokenized_count.txt"
CLIP_COUNTS = "CLIP_tokenized_count.txt"
FIRST_ID = 2
MOST_DIGITS = 18
Label = TypeVar("Label", str, int)


def glove_counts(sentences: Iterable[str]) -> list[tuple[str, int, int]]:
    """Return (word, id, count) rows, most frequent first, ties in order of first appearance.

    The id is the word's index in the sorted vocabulary, plus 2 for ``<PAD>`` and ``<UNK>``.

    >>> glove_counts(["He cuts.", "He rinses"])
    [('he', 3, 2), ('cuts', 2, 1), ('rinses', 4, 1)]
    """
    counts = Counter(word for sentence in sentences for word in count_words(sentence))
    ids = {word: number for number, word in enumerate(sorted(counts), start=FIRST_ID)}
    return [(word, ids[word], count) for word, count in counts.most_common()]


def clip_counts(sentences: Iterable[Iterable[int]]) -> list[tuple[int, int]]:
    """Return (token id, count) rows of sentences given as token ids, most frequent first.

    >>> clip_counts([[5, 7], [7]])
    [(7, 2), (5, 1)]
    """
    return Counter(token for tokens in sentences for token in tokens).most_common()


def counts_text(rows: Iterable[tuple[object, ...]]) -> bytes:
    """Return a count file's content: one row a line, its fields separated by spaces.

    >>> counts_text([("he", 3, 2)])
    b'he 3 2\\n'
    """
    return "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()


def read_glove_counts(path: Path) -> list[str]:
    """Return the words of a ``WORD ID COUNT`` file, most frequent first.

    Raises:
        TextError: the file is missing.
        DataError: a line is malformed; the message names it.
    """
    return [word for word, _, _ in _fields(path, form="WORD ID COUNT")]


def read_clip_counts(path: Path) -> list[int]:
    """Return the token ids of a ``TOKEN_ID COUNT`` file, most frequent first.

    Raises:
        TextError: the file is missing.
        DataError: a line is malformed; the message names it.
    """
    rows = _fields(path, form="TOKEN_ID COUNT")
    return [int(token) for token, _ in rows]


def label_words(words: list[Label], vocab_size: int, *, path: Path) -> list[Label]:
    """Return the first ``vocab_size`` words or tokens.

    Raises:
        TextError: there are fewer.
    """
    if len(words) < vocab_size:
        raise TextError(
            f"{path} has {len(words)} words, fewer than text.vocab_size = {vocab_size}.",
            hint=f"Use --set text.vocab_size={len(words)}, or count more sentences.",
        )
    return words[:vocab_size]


def _is_count(field: str) -> bool:
    return field.isascii() and field.isdigit() and len(field) <= MOST_DIGITS


def _fields(path: Path, *, form: str) -> list[list[str]]:
    if not path.parent.is_dir():
        raise TextError(
            f"There is no annotations folder at {path.parent}.",
            hint="Give --annotations DIR, or put the dataset into the data folder: --data-dir, $MESM_DATA or ./data.",
        )
    if not path.is_file():
        raise TextError(
            f"No count file at {path}.", hint="`mesm count-tokens --dataset NAME` writes it from the annotations."
        )
    rows = []
    for number, line in enumerate(split_lines(read_text(link_target(path))), start=1):
        fields = line.split()
        numbers = fields[1:] if form.startswith("WORD") else fields
        if len(fields) != len(form.split()) or not all(map(_is_count, numbers)):
            raise DataError(
                f"{path}, line {number}: expected '{form}', found {shown(line)}.",
                hint="`mesm count-tokens --overwrite` writes the file again.",
            )
        rows.append(fields)
    return rows
