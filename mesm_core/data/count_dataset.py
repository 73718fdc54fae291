"""Counts the words and tokens of a dataset and writes its count files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesm_core.config.schema import DatasetConfig
from mesm_core.data.count_files import CLIP_COUNTS, GLOVE_COUNTS, clip_counts, counts_text, glove_counts
from mesm_core.data.readers import annotation_files, make_reader, read_split
from mesm_core.data.splits import known_splits
from mesm_core.errors import DataError, listing
from mesm_core.files import together, write_atomically, write_links
from mesm_core.inputs import read_text, split_lines
from mesm_core.places import refuse_existing
from mesm_core.text.clip_bpe import ClipTokenizer

SPECIALS = 2
STEP = 500
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Written:
    """A count file: its distinct tokens (``rows``), total count, whether it changed, and the target of a link."""

    path: Path
    rows: int
    tokens: int
    changed: bool
    link: Path | None = None


def count_dataset(
    dataset: str,
    folder: Path,
    *,
    out: Path,
    kinds: Sequence[str],
    max_words: int,
    overwrite: bool,
    splits: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Written]:
    """Write the count files of a dataset; files whose content would not change are not written.

    Args:
        dataset: reader's name; folder: its annotations; out: folder to write to.
        kinds: ``glove``, ``clip`` or both; max_words: CLIP sentences are cut to two tokens less.
        splits: splits whose sentences are counted, in order; default: train, then the evaluation split.
            A dataset that shares another's files gets links to them.
        progress: called with the number of sentences done.

    Raises:
        DataError: the annotations are missing or malformed.
        OutputError: a file with different content exists and ``overwrite`` is off. Nothing is written then.
    """
    reader = make_reader(dataset)
    if not splits and reader.counts_in is not None:
        return link_counts(folder / reader.counts_in, out, kinds=kinds, overwrite=overwrite)
    chosen = splits or reader.count_splits
    sentences = [query.sentence for split in chosen for query in read_split(dataset, folder, split).queries]
    contents: dict[Path, list[tuple[object, ...]]] = {}
    if "glove" in kinds:
        contents[out / GLOVE_COUNTS] = list(glove_counts(_with_progress(sentences, progress)))
    if "clip" in kinds:
        tokenizer = ClipTokenizer()
        limit = max_words - SPECIALS
        tokens = (tokenizer.encode(sentence)[:limit] for sentence in _with_progress(sentences, progress))
        contents[out / CLIP_COUNTS] = list(clip_counts(tokens))
    texts = {path: counts_text(rows) for path, rows in contents.items()}
    changed = {path: not path.is_file() or path.read_bytes() != text for path, text in texts.items()}
    for path in texts:
        if changed[path]:
            refuse_existing(path, overwrite=overwrite)
    with together():
        for path, text in texts.items():
            if changed[path]:
                write_atomically(path, text, overwrite=overwrite)
    return [
        Written(path, len(rows), sum(int(str(row[-1])) for row in rows), changed[path])
        for path, rows in contents.items()
    ]


def count_inputs(dataset: str, folder: Path, splits: Sequence[str] = ()) -> list[Path]:
    """Return the annotation files that ``count_dataset`` reads."""
    return annotation_files(dataset, folder, splits or make_reader(dataset).count_splits)


def count_outputs(out: Path, kinds: Sequence[str]) -> list[Path]:
    """Return the files that ``count_dataset`` writes."""
    return [out / name for kind, name in (("glove", GLOVE_COUNTS), ("clip", CLIP_COUNTS)) if kind in kinds]


def dataset_files(dataset: DatasetConfig, folder: Path) -> list[Path]:
    """Return the annotation, ground-truth and count files of all splits of a dataset."""
    return [*annotation_files(dataset.name, folder, known_splits(dataset)), *count_outputs(folder, ("glove", "clip"))]


def link_counts(source: Path, out: Path, *, kinds: Sequence[str], overwrite: bool) -> list[Written]:
    """Link another dataset's count files into a folder, as the published layout does.

    Raises:
        DataError: the other dataset's files are missing; OutputError: as for ``count_dataset``.
    """
    names = [path.name for path in count_outputs(out, kinds)]
    missing = [name for name in names if not (source / name).is_file()]
    if missing:
        raise DataError(
            f"{listing(missing)} of Charades-STA not found in {source}.",
            hint="Run `mesm count-tokens --dataset charades` first.",
        )
    same = {n: (out / n).is_file() and (out / n).read_bytes() == (source / n).read_bytes() for n in names}
    for name in names:
        if not same[name]:
            refuse_existing(out / name, overwrite=overwrite)
    write_links({out / name: source / name for name in names if not same[name]})
    written = []
    for name in names:
        path, target = out / name, source / name
        rows = split_lines(read_text(target))
        written.append(Written(path, len(rows), _total(rows, target), not same[name], link=target))
    return written


def _total(rows: Sequence[str], path: Path) -> int:
    try:
        return sum(int(row.split()[-1]) for row in rows)
    except (IndexError, ValueError):
        raise DataError(f"{path}: a line does not end with a count.") from None


def _with_progress(sentences: Sequence[str], progress: Progress | None) -> Iterator[str]:
    for number, sentence in enumerate(sentences, start=1):
        yield sentence
        if progress is not None and number % STEP == 0:
            progress(STEP)
