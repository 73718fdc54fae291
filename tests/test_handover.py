"""Threads that hand values over come to their end, whenever the main thread is interrupted."""

from __future__ import annotations

import queue
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mesm_core.data.dataset import read_ahead
from mesm_core.handover import Handover, call_in_thread

TRIALS = 300
SECONDS_TO_END = 10


class Interrupted(BaseException):
    """A signal's handler raised."""


class Hung(BaseException):
    """Nothing came to its end after the interruption."""


@contextmanager
def interrupted() -> Iterator[Callable[[float], object]]:
    """Yield what lets Interrupted be raised after so many seconds, whatever the main thread does, and Hung later."""

    def handle(*_: object) -> None:
        signal.signal(signal.SIGALRM, hung)
        raise Interrupted

    def hung(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, handle)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds, SECONDS_TO_END)
    except Interrupted:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def consume_batches(begin: Callable[[], object], threads: int) -> None:
    made: Callable[[int], Any] = lambda number: number + 1  # noqa: E731
    for number, _ in enumerate(read_ahead(made, range(10**9), threads=threads)):
        if number == 0:  # the thread runs
            begin()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_interruption_at_any_moment_ends_the_reading_threads(threads: int) -> None:
    moments = random.Random(threads)
    ended = 0
    for _ in range(TRIALS):
        with interrupted() as after:
            consume_batches(lambda: after(moments.uniform(1e-4, 3e-3)), threads)
        ended += 1  # otherwise Hung was raised
    assert ended == TRIALS


def test_values_come_in_order_and_wait_for_room() -> None:
    numbers = Handover[int](2)
    sent: list[bool] = []
    thread = threading.Thread(target=lambda: sent.extend(numbers.put(number) for number in range(10)))
    thread.start()
    assert [numbers.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    numbers.close()
    thread.join(10)
    assert not thread.is_alive()
    assert sent[:5] == [True] * 5
    assert not all(sent)
    with pytest.raises(queue.Empty):
        while True:
            numbers.get(timeout=0.01)


def test_a_call_in_a_thread_returns_raises_and_is_stopped() -> None:
    assert call_in_thread(lambda: 3, stop=lambda: None) == 3
    with pytest.raises(KeyError, match="missing"):
        call_in_thread(lambda: {}["missing"], stop=lambda: None)
    stop = threading.Event()
    with interrupted() as after:
        after(0.01)
        call_in_thread(lambda: stop.wait(60), stop=stop.set)
    assert stop.is_set()
