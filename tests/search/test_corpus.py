"""Evaluation of a search in planted videos."""

from __future__ import annotations

import numpy as np
import pytest

from mesm_core.errors import DataError
from mesm_core.search import Searcher
from mesm_core.search.corpus import BOUND, STAGE_ONE, STAGE_TWO, evaluate_corpus
from mesm_core.search.searcher import MomentModel
from mesm_core.types import Query
from tests.search.planted import LENGTHS, MOMENTS, Halves, Sentences, planted_index

QUERIES = [
    Query(number, video, sentence, float(LENGTHS[video]), ((start, end),))
    for number, (sentence, (video, start, end)) in enumerate(MOMENTS.items())
]


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return Searcher(planted_index(tmp_path_factory.mktemp("index") / "i"), Sentences())


def test_planted_moments_are_found_in_the_collection(searcher: Searcher) -> None:
    seen: list[int] = []
    report = evaluate_corpus(searcher, QUERIES, progress=seen.append)
    assert (report.videos, report.queries, sum(seen)) == (4, 3, 3)
    assert list(report.rows) == [STAGE_ONE, STAGE_TWO, BOUND]
    assert report.rows[STAGE_TWO]["R1@0.7"] == report.rows[BOUND]["R1@0.7"] == 100
    assert report.rows[STAGE_ONE]["VR@1"] == report.rows[STAGE_ONE]["VR@100"] == 100


def test_the_right_video_bounds_the_recall_of_stage_two(searcher: Searcher) -> None:
    model = MomentModel(Halves(), ("clip-b32",), longest=1e9, part=1e9)
    report = evaluate_corpus(Searcher(searcher.index, Sentences(), model), QUERIES)
    assert report.rows[BOUND]["VR@1"] == 100
    for depth in ("R1@0.5", "R10@0.5"):
        assert report.rows[STAGE_TWO][depth] <= report.rows[BOUND][depth]


def test_a_model_may_see_other_features_than_those_of_the_index(searcher: Searcher) -> None:
    asked: list[str] = []

    def features(video: str) -> list[np.ndarray]:
        asked.append(video)
        return [np.ones((LENGTHS[video], 32), np.float32)]

    model = MomentModel(Halves(), (), longest=float("inf"), part=float("inf"), features=features)
    evaluate_corpus(Searcher(searcher.index, Sentences(), model), QUERIES[:1])
    assert set(asked) == set(LENGTHS)


def test_queries_without_their_video_or_window_are_refused(searcher: Searcher) -> None:
    with pytest.raises(DataError, match="lacks 1 of 2 videos: garage"):
        evaluate_corpus(searcher, [*QUERIES[:1], Query(9, "garage", "a car", 5.0, ((1.0, 2.0),))])
    with pytest.raises(DataError, match="The queries 9 have no described moment"):
        evaluate_corpus(searcher, [Query(9, "beach", "a car", 90.0)])
    with pytest.raises(DataError, match="no queries"):
        evaluate_corpus(searcher, [])
