"""Merging of segments into spans, and the parts of videos that a moment model sees."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mesm_core.search.engines.protocol import SegmentHit
from mesm_core.search.segments import pool_segments
from mesm_core.search.spans import Part, Span, joined_parts, merge_hits, part_around
from tests.search.made import indexed


def video(name: str, length: int):
    return indexed(name, pool_segments(np.ones((length, 4)), clip_len=1.0, duration=float(length)), length)


def test_similar_neighbours_extend_a_span_and_others_are_dropped() -> None:
    hits = [
        SegmentHit("a", 4, 12, 0.5),
        SegmentHit("a", 8, 16, 0.46),
        SegmentHit("b", 0, 8, 0.45),
        SegmentHit("a", 0, 8, 0.44),
        SegmentHit("a", 40, 48, 0.3),
    ]
    assert merge_hits(hits) == [Span("a", 4, 16, 0.5), Span("b", 0, 8, 0.45), Span("a", 40, 48, 0.3)]
    assert merge_hits(hits, join=0.8)[0] == Span("a", 0, 16, 0.5)
    assert merge_hits([]) == []


def test_spans_are_disjoint_within_a_video() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts = rng.permutation(30)[:20] * 4.0
        hits = [SegmentHit("a", s, s + 8, float(x)) for s, x in zip(starts, -np.sort(-rng.random(20)), strict=True)]
        spans = sorted(merge_hits(hits, join=float(rng.random())), key=lambda span: span.start)
        assert all(one.end <= two.start for one, two in pairwise(spans))
        assert max(span.similarity for span in spans) == hits[0].similarity


@pytest.mark.parametrize(("start", "end"), [(0, 8), (40, 48), (92, 100), (0, 100), (30, 80)])
def test_a_part_covers_its_span_and_stays_in_the_video(start: float, end: float) -> None:
    part = part_around(Span("v", start, end, 0.3), video("v", 100), 100, least=30.0, longest=60.0)
    assert part.start <= start
    assert end <= part.start + part.seconds
    assert 0 <= part.first < part.after <= 100
    assert part.seconds == part.after - part.first >= 30
    assert part.start == part.first


def test_a_short_video_is_seen_whole() -> None:
    part = part_around(Span("v", 8, 16, 0.3), video("v", 50), 50, least=30.0, longest=60.0)
    assert part == Part("v", 0, 50, 0.0, 50.0, 0.3)


def test_equal_parts_are_seen_once_with_the_best_similarity() -> None:
    long = video("v", 500)
    spans = [Span("v", 100, 108, 0.2), Span("v", 112, 120, 0.4), Span("v", 400, 408, 0.3)]
    parts = joined_parts(part_around(span, long, 500, least=200.0, longest=60.0) for span in spans)
    assert [part.similarity for part in parts] == [0.4, 0.3]
