"""Builds a dataset's vocabulary of word vectors, by the rules of the published glove.pkl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mesm_core.data.readers import annotation_files, make_reader, read_split
from mesm_core.errors import DataError
from mesm_core.text.vocabulary import Vocabulary, build_vocabulary
from mesm_core.text.words import LexiconTagger


def vocabulary_files(dataset: str, folder: Path, splits: Sequence[str] = ()) -> list[Path]:
    """Return the annotation files that ``dataset_vocabulary`` reads."""
    return annotation_files(dataset, folder, splits or make_reader(dataset).count_splits)


def dataset_vocabulary(dataset: str, folder: Path, glove: Path, *, dim: int, splits: Sequence[str] = ()) -> Vocabulary:
    """Return the words of a dataset's sentences, in order of first appearance in train, then in the evaluation split.

    Args:
        splits: splits whose sentences are used, in order; default: those of the dataset.

    As in the published glove.pkl, a query whose annotated moment is inverted or ends after the video is not counted.

    Raises:
        DataError: the annotations are missing; TextError: the GloVe file is missing or does not fit.
    """
    reader = make_reader(dataset)
    chosen = splits or reader.count_splits
    if not chosen:
        raise DataError(
            f"{dataset} shares Charades-STA's vocabulary.", hint="Build it with --dataset charades-vgg-glove."
        )
    tagger = LexiconTagger()
    queries = [query for split in chosen for query in read_split(dataset, folder, split).queries]
    sentences = ([token.lower() for token in tagger.tokens(q.sentence)] for q in queries if not q.repaired)
    return build_vocabulary(glove, sentences, dim=dim)
