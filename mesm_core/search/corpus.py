"""Evaluation of a search: every query of a split is asked of a whole collection (VCMR)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mesm_core.errors import DataError, listing
from mesm_core.metrics.corpus import MOMENT_DEPTHS, VIDEO_DEPTHS, Result, corpus_recall
from mesm_core.search.results import Found
from mesm_core.search.searcher import Searcher
from mesm_core.types import Query

STAGE_ONE, STAGE_TWO, BOUND = "stage one", "stage two", "right video given"
AT_ONCE = 32


@dataclass(frozen=True)
class CorpusReport:
    """Recall of a search in ``videos`` videos for ``queries`` queries, in %.

    ``rows``: for the spans of stage one; for the moments of stage two; and, as an upper bound, for the moments of the
    same model if the right video is given. Videos of stage one that have no moment in stage two come after those that
    have one.
    """

    videos: int
    queries: int
    rows: Mapping[str, Mapping[str, float]]


def evaluate_corpus(
    searcher: Searcher,
    queries: Sequence[Query],
    *,
    order: str = "confidence",
    progress: Callable[[int], None] | None = None,
) -> CorpusReport:
    """Return the recall of a search.

    Args:
        queries: with windows; their ``vid`` is the name of a video in the index.
        order: of the moments of stage two, as for ``Searcher.search``.
        progress: called with the number of queries done.

    Raises:
        DataError: a query has no window, or the index has no video or several videos of its name.
    """
    ids = _videos_of(searcher, queries)
    found: dict[str, list[list[Result]]] = {STAGE_ONE: [], STAGE_TWO: [], BOUND: []}
    for first in range(0, len(queries), AT_ONCE):
        part = queries[first : first + AT_ONCE]
        sentences = [query.sentence for query in part]
        spans = searcher.search(sentences, top=VIDEO_DEPTHS[-1], stage=1)
        moments = searcher.search(sentences, top=MOMENT_DEPTHS[-1], order=order)
        given = [searcher.search_in(query.sentence, ids[query.vid], top=MOMENT_DEPTHS[-1]) for query in part]
        for one, two, bound in zip(spans, moments, given, strict=True):
            found[STAGE_ONE].append(_results(one.found))
            found[STAGE_TWO].append(_results(two.found))
            found[BOUND].append(_results(bound.found))
        if progress is not None:
            progress(len(part))
    truth = [(query.vid, query.windows) for query in queries]
    rows = {
        STAGE_ONE: corpus_recall(found[STAGE_ONE], truth),
        STAGE_TWO: corpus_recall(found[STAGE_TWO], truth, others=found[STAGE_ONE]),
        BOUND: corpus_recall(found[BOUND], truth),
    }
    return CorpusReport(len(searcher.index.videos), len(queries), rows)


def _results(found: Sequence[Found]) -> list[Result]:
    return [(one.video.name, one.start, one.end) for one in found]


def _videos_of(searcher: Searcher, queries: Sequence[Query]) -> dict[str, str]:
    """Return the id of the video of each query."""
    if not queries:
        raise DataError("There are no queries.")
    names = Counter(video.name for video in searcher.index.videos.values())
    wanted = dict.fromkeys(query.vid for query in queries)
    missing = [name for name in wanted if not names[name]]
    if missing:
        raise DataError(
            f"{searcher.index.path} lacks {len(missing)} of {len(wanted)} videos: {listing(missing)}.",
            hint="Build the index from the features of all videos of the split.",
        )
    repeated = [name for name in wanted if names[name] > 1]
    if repeated:
        raise DataError(f"{searcher.index.path} has several videos called {listing(repeated)}.")
    without = [str(query.qid) for query in queries if not query.windows]
    if without:
        raise DataError(f"The queries {listing(without)} have no described moment.", hint="Choose another split.")
    return {video.name: video.id for video in searcher.index.videos.values()}
