"""Chooses a frame for each row of features, by exact arithmetic on presentation times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

Value = TypeVar("Value")


def round_half_away(value: Fraction) -> int:
    """Return the nearest integer; halves are rounded away from zero, as FFmpeg's ``fps`` filter rounds.

    >>> round_half_away(Fraction(5, 2)), round_half_away(Fraction(-5, 2)), round_half_away(Fraction(7, 3))
    (3, -3, 2)
    """
    if value < 0:
        return -round_half_away(-value)
    return int(value + Fraction(1, 2))


@dataclass(frozen=True, slots=True)
class Chosen(Generic[Value]):
    """A row of features: its number, and the index (among decodable frames) and time in seconds of its frame.

    ``value``: the object that was pushed with the frame.
    """

    row: int
    frame: int
    time: Fraction
    value: Value


class RowClock(Generic[Value]):
    """Chooses a frame for every row, one frame at a time.

    Frame i at time t has the place p = round_half_away(t / clip_len). Row n takes the last frame with p ≤ n, which is
    the frame just before the middle of the row's clip. Rows before the first frame's place repeat the first row that
    has a frame. There are round_half_away(end / clip_len) rows. This is what FFmpeg's filter ``fps=1/clip_len`` keeps.

    Args:
        clip_len: seconds of video per row.
        at_least_one: give a video that is too short for a row one row, with the last frame of the first place.
    """

    def __init__(self, clip_len: Fraction, *, at_least_one: bool = False) -> None:
        if clip_len <= 0:
            raise ValueError(f"clip_len is {clip_len}; it must be positive")
        self.clip_len = clip_len
        self._at_least_one = at_least_one
        self._next = 0
        self._last: tuple[int, Fraction, Value] | None = None
        self._place = 0

    def push(self, index: int, time: Fraction, value: Value) -> Iterator[Chosen[Value]]:
        """Take the next frame, with a value to return for it, and yield the rows that it determines."""
        place = round_half_away(time / self.clip_len)
        if self._last is not None and place > self._place:
            yield from self._rows(place)
        self._last, self._place = (index, time, value), max(place, self._place)

    def finish(self, end: Fraction) -> Iterator[Chosen[Value]]:
        """Yield the remaining rows; ``end`` is the last frame's time plus its duration, in seconds."""
        if self._last is None:
            return
        count = round_half_away(end / self.clip_len)
        if self._at_least_one:
            count = max(count, 1)
        if self._place < count:
            yield from self._rows(count)
        elif self._at_least_one and self._next == 0:
            yield Chosen(0, *self._last)

    def _rows(self, stop: int) -> Iterator[Chosen[Value]]:
        assert self._last is not None
        for row in range(self._next, stop):
            yield Chosen(row, *self._last)
        self._next = max(self._next, stop)


def choose_rows(times: list[Fraction], *, last_duration: Fraction, clip_len: Fraction) -> list[int]:
    """Return the index of the frame of every row, given all frames' times in seconds.

    >>> choose_rows([Fraction(i, 25) for i in range(50)], last_duration=Fraction(1, 25), clip_len=Fraction(1))
    [12, 37]
    """
    clock: RowClock[None] = RowClock(clip_len)
    rows = [row for index, time in enumerate(times) for row in clock.push(index, time, None)]
    if times:
        rows += clock.finish(times[-1] + last_duration)
    return [row.frame for row in rows]
