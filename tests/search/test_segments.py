"""Segments: their spans and their vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesm_core.search.segments import pool_segments, segment_spans


@settings(max_examples=200, deadline=None)
@given(duration=st.floats(0.01, 5000), seconds=st.floats(0.5, 60), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_segments_cover_the_video_and_end_with_it(duration: float, seconds: float, overlap: float) -> None:
    spans = segment_spans(duration, seconds=seconds, overlap=overlap)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == duration
    assert (spans[1:, 0] <= spans[:-1, 1] + 1e-6).all()
    assert (np.diff(spans[:, 0]) > 0).all()
    assert np.allclose(spans[:, 1] - spans[:, 0], min(duration, seconds))


def test_a_vector_is_the_mean_of_the_rows_inside() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 6))
    found = pool_segments(rows, clip_len=1.0, duration=30.0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for vector, (start, end) in zip(found.vectors, found.spans, strict=True):
        mean = unit[int(start) : int(end)].mean(axis=0)
        assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-3)
    assert found.vectors.dtype == np.float16


def test_vectors_do_not_depend_on_the_lengths_of_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 6))
    scaled = rows * np.linspace(0.1, 100, 30)[:, None]
    assert np.array_equal(
        pool_segments(rows, clip_len=1.0, duration=30.0).vectors,
        pool_segments(scaled, clip_len=1.0, duration=30.0).vectors,
    )


@pytest.mark.parametrize(("clip_len", "length"), [(60.0, 2), (0.1, 3), (2.0, 1)])
def test_every_segment_has_a_vector_for_any_length_of_rows(clip_len: float, length: int) -> None:
    rows = np.random.default_rng(0).normal(size=(length, 6))
    found = pool_segments(rows, clip_len=clip_len, duration=90.0)
    assert len(found) == len(segment_spans(90.0))
    assert np.allclose(np.linalg.norm(found.vectors.astype(np.float32), axis=1), 1, atol=2e-3)


def test_black_frames_have_the_vector_zero() -> None:
    assert not pool_segments(np.zeros((9, 4)), clip_len=1.0, duration=9.0).vectors.any()
