"""Candidates of a search: spans merged from segments, and the parts of videos that the moment model sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mesm_core.search.engines.protocol import SegmentHit
from mesm_core.search.manifest import IndexedVideo

JOIN = 0.9
"""Similarity of a segment, as a share of the best one of its span, from which it belongs to the span."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a video: ``video``: id; ``start``, ``end``: seconds; ``similarity``: the best of its segments."""

    video: str
    start: float
    end: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``first`` to ``after`` (exclusive) of a video's features, with the best similarity of the spans in it.

    ``start``, ``seconds``: where the part begins in the video, and its length.
    """

    video: str
    first: int
    after: int
    start: float
    seconds: float
    similarity: float


def merge_hits(hits: Iterable[SegmentHit], *, join: float = JOIN) -> list[Span]:
    """Return disjoint spans, best first.

    A segment that overlaps or touches a better span of its video extends it if its similarity is at least ``join``
    times that of the span; otherwise it is dropped.

    Args:
        hits: best first, as from ``Index.query``.

    >>> hits = [SegmentHit("a", 4, 12, 0.30), SegmentHit("a", 8, 16, 0.29), SegmentHit("b", 0, 8, 0.25)]
    >>> merge_hits(hits)
    [Span(video='a', start=4, end=16, similarity=0.3), Span(video='b', start=0, end=8, similarity=0.25)]
    """
    by_video: dict[str, list[Span]] = {}
    for hit in hits:
        spans = by_video.setdefault(hit.video, [])
        near = next((n for n, span in enumerate(spans) if hit.start <= span.end and span.start <= hit.end), None)
        if near is None:
            spans.append(Span(hit.video, hit.start, hit.end, hit.similarity))
        elif hit.similarity >= join * (best := spans[near].similarity):
            joined = Span(hit.video, min(hit.start, spans[near].start), max(hit.end, spans[near].end), best)
            rest = [span for n, span in enumerate(spans) if n != near]
            by_video[hit.video] = [*_without_overlap(rest, joined), joined]
    found = [span for spans in by_video.values() for span in spans]
    return sorted(found, key=lambda span: -span.similarity)


def _without_overlap(spans: Sequence[Span], joined: Span) -> list[Span]:
    """Return the spans with the parts cut off that ``joined`` covers."""
    kept = []
    for span in spans:
        start, end = span.start, span.end
        if joined.start <= start < joined.end:
            start = joined.end
        if joined.start < end <= joined.end:
            end = joined.start
        if start < end:
            kept.append(Span(span.video, start, end, span.similarity))
    return kept


def part_around(span: Span, video: IndexedVideo, rows: int, *, least: float, longest: float) -> Part:
    """Return the part of a video that a moment model sees for a span: the span with its surroundings.

    Args:
        rows: of the video's features.
        least: seconds of the part, unless the span is longer or the video shorter.
        longest: the whole video is taken up to this duration in seconds.

    The part of a long video begins at a multiple of a quarter of ``least``, so that spans close to each other share it.
    """
    clip_len, duration = video.clip_len, video.duration
    if duration <= longest:
        return Part(video.id, 0, rows, 0.0, duration, span.similarity)
    around = max(least - (span.end - span.start), 0.0) / 2
    step = least / 4
    start = max(math.floor((span.start - around) / step) * step, 0.0)
    end = min(max(start + least, span.end), duration)
    start = max(min(start, end - least), 0.0)
    first = min(int(start / clip_len), rows - 1)
    after = min(max(math.ceil(end / clip_len), first + 1), rows)
    seconds = duration - first * clip_len if after == rows else (after - first) * clip_len
    return Part(video.id, first, after, first * clip_len, max(seconds, clip_len), span.similarity)


def joined_parts(parts: Iterable[Part]) -> list[Part]:
    """Return each part once, with the best similarity of its spans, best first."""
    best: dict[tuple[str, int, int], Part] = {}
    for part in parts:
        key = (part.video, part.first, part.after)
        if key not in best or part.similarity > best[key].similarity:
            best[key] = part
    return sorted(best.values(), key=lambda part: -part.similarity)
