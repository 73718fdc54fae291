"""Count a dataset's tokens into its count files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mesm_core.data.annotations import make_reader, read_split
from mesm_core.data.counts import CLIP_COUNTS, GLOVE_COUNTS, clip_counts, counts_text, glove_counts
from mesm_core.data.files import refuse_existing, write_atomically
from mesm_core.text.clip_bpe import ClipTokenizer

SPECIALS = 2


@dataclass(frozen=True)
class Written:
    """A count file: how many different tokens it has, how many were counted, and whether it is new."""

    path: Path
    rows: int
    tokens: int
    changed: bool


def count_dataset(
    dataset: str, folder: Path, *, out: Path, kinds: Sequence[str], max_words: int, overwrite: bool
) -> list[Written]:
    """Write the count files of a dataset; a file that would not change is left alone.

    Args:
        dataset: reader's name; folder: its annotations; out: folder to write to.
        kinds: ``glove``, ``clip`` or both; max_words: CLIP sentences are cut to two tokens less.

    Raises:
        DataError: the annotations are missing or malformed.
        OutputError: a file exists with other content and ``overwrite`` is off; nothing is written then.
    """
    splits = make_reader(dataset).count_splits
    sentences = [query.sentence for split in splits for query in read_split(dataset, folder, split).queries]
    contents: dict[Path, list[tuple[object, ...]]] = {}
    if "glove" in kinds:
        contents[out / GLOVE_COUNTS] = list(glove_counts(sentences))
    if "clip" in kinds:
        tokenizer = ClipTokenizer()
        limit = max_words - SPECIALS
        contents[out / CLIP_COUNTS] = list(clip_counts(tokenizer.encode(sentence)[:limit] for sentence in sentences))
    texts = {path: counts_text(rows) for path, rows in contents.items()}
    changed = {path: not path.is_file() or path.read_bytes() != text for path, text in texts.items()}
    for path in texts:
        if changed[path]:
            refuse_existing(path, overwrite=overwrite)
    for path, text in texts.items():
        if changed[path]:
            write_atomically(path, text, overwrite=overwrite)
    return [
        Written(path, len(rows), sum(int(str(row[-1])) for row in rows), changed[path])
        for path, rows in contents.items()
    ]
