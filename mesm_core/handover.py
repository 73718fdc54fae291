"""Passing values from threads to the main thread, which a signal may interrupt at any point."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, Generic, TypeVar, cast

Value = TypeVar("Value")
_PAUSE_SECONDS = 0.005


class Handover(Generic[Value]):
    """A queue whose threads always end after ``close``, even if Ctrl-C interrupted ``get``.

    ``queue.Queue`` and futures use locks in Python code. If a signal handler raises there, a lock may stay held, and
    threads that put values wait forever. ``SimpleQueue`` has no such lock.

    Args:
        most: number of waiting values from which ``put`` blocks; default: no limit. Each thread may exceed it by one.

    >>> numbers = Handover[int]()
    >>> numbers.put(3), numbers.get()
    (True, 3)
    >>> numbers.close()
    >>> numbers.put(4)
    False
    """

    def __init__(self, most: int | None = None) -> None:
        self._values: queue.SimpleQueue[Value] = queue.SimpleQueue()
        self._most = most
        self.closed = False

    def put(self, value: Value) -> bool:
        """Add a value once there is room. Return False, without adding it, if the queue is closed."""
        while not self.closed and self._most is not None and self._values.qsize() >= self._most:
            time.sleep(_PAUSE_SECONDS)
        if not self.closed:
            self._values.put(value)
        return not self.closed

    def get(self, timeout: float | None = None) -> Value:
        """Wait for the next value and return it.

        Args:
            timeout: maximum number of seconds to wait.

        Raises:
            queue.Empty: no value arrived in time.
        """
        return self._values.get(timeout=timeout)

    def close(self) -> None:
        """Accept no more values, so that the threads can end."""
        self.closed = True


@contextmanager
def running(works: Iterable[Callable[[], None]], *ready: Handover[Any]) -> Iterator[None]:
    """Run functions that put values into ``ready``, each in a thread. At the end, close ``ready`` and join them."""
    threads = [Thread(target=work, daemon=True) for work in works]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        for handover in ready:
            handover.close()
        for thread in threads:
            if thread.is_alive():  # it may not have been started when an interruption came
                thread.join()


def call_in_thread(function: Callable[[], Value], *, stop: Callable[[], None]) -> Value:
    """Run a function in a separate thread, where no signal interrupts it, and return its result.

    Args:
        stop: called if the wait is interrupted; makes the function end soon. Its end is awaited.

    Raises:
        Any exception of the function.
    """
    result: Handover[tuple[Value | None, BaseException | None]] = Handover()

    def call() -> None:
        try:
            result.put((function(), None))
        except BaseException as error:  # raised in the caller's thread
            result.put((None, error))

    with running([call], result):
        try:
            value, error = result.get()
        except BaseException:
            stop()
            raise
    if error is not None:
        raise error
    return cast("Value", value)
