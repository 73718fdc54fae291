"""Synthetic videos show what their sentences describe, at the annotated times."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mesm_core.data.invented_videos import COLOURS, FPS, SIZE, Event, draw_events, picture, write_invented_videos
from mesm_core.data.readers.json_lines import read_lines
from mesm_core.video.probe import probe

GROUND = np.full((SIZE[1], SIZE[0], 3), 100, np.uint8)


def middle(drawn: np.ndarray) -> tuple[float, float, float]:
    """Return the mean (x, y) of the pixels that differ from the ground, and their number."""
    y, x = np.nonzero((drawn != GROUND).any(axis=2))
    return float(x.mean()), float(y.mean()), float(len(x))


@pytest.mark.parametrize(
    ("motion", "what", "sign"),
    [
        ("moves left", 0, -1),
        ("moves right", 0, 1),
        ("rises", 1, -1),
        ("falls", 1, 1),
        ("grows", 2, 1),
        ("shrinks", 2, -1),
    ],
)
def test_motions_change_the_picture(motion: str, what: int, sign: int) -> None:
    event = Event(2.0, 6.0, "red", "circle", motion)
    values = [middle(picture([event], time, GROUND))[what] for time in (2.0, 3.0, 4.0, 5.0, 5.875)]
    assert all(sign * (after - before) > 5 for before, after in pairwise(values))


@pytest.mark.parametrize("colour", COLOURS)
def test_shapes_have_the_colour_of_the_event(colour: str) -> None:
    drawn = picture([Event(0.0, 4.0, colour, "square", "rests")], 1.0, GROUND)
    assert tuple(drawn[SIZE[1] // 2, SIZE[0] // 2]) == COLOURS[colour]


def test_no_shape_is_drawn_outside_an_event() -> None:
    event = Event(2.0, 6.0, "red", "ring", "rests")
    assert not np.array_equal(picture([event], 2.0, GROUND), GROUND)
    for time in (1.875, 6.0):
        assert np.array_equal(picture([event], time, GROUND), GROUND)
    blinking = [picture([Event(0.0, 6.0, "red", "ring", "blinks")], time, GROUND) for time in range(6)]
    seen = [not np.array_equal(drawn, GROUND) for drawn in blinking]
    assert set(seen) == {True, False}  # also in rows of a second


def test_events_of_a_video_are_distinguishable() -> None:
    for seed in range(50):
        events, duration = draw_events(np.random.default_rng(seed), (3.0, 8.0))
        looks = [(event.colour, event.shape, event.motion) for event in events]
        assert len(set(looks)) == len(looks)
        times = [time for event in events for time in (event.start, event.end)]
        assert times == sorted(times)
        assert times[-1] <= duration


def test_written_files_agree_and_are_reproducible(tmp_path: Path) -> None:
    written = list(write_invented_videos(tmp_path, videos={"train": 2, "test": 1}))
    assert written == ["train-00", "train-01", "test-00"]
    for split, videos in (("train", 2), ("test", 1)):
        queries = read_lines(tmp_path / f"{split}.jsonl", strict=True).queries
        assert len({query.vid for query in queries}) == videos
        for query in queries:
            found = probe(tmp_path / "videos" / f"{query.vid}.mp4")
            assert found.duration_s == pytest.approx(query.duration)
            assert found.frames == round(query.duration * FPS)
    words = {word.strip(".").lower() for query in queries for word in query.sentence.split()}
    lines = (tmp_path / "glove.invented.txt").read_text().splitlines()
    assert words <= {line.split()[0] for line in lines}
    again = tmp_path / "again"
    list(write_invented_videos(again, videos={"train": 2, "test": 1}))
    assert (again / "train.jsonl").read_bytes() == (tmp_path / "train.jsonl").read_bytes()
