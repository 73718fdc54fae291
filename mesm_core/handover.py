"""Values on their way from other threads to the main thread, which a signal may interrupt anywhere."""

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
    """A queue whose threads always come to their end after ``close``, also where Ctrl-C interrupted ``get``.

    ``queue.Queue`` and futures guard themselves with locks taken in Python code. An exception that a signal's handler
    raises there can leave such a lock held, and the threads that put values then wait for ever. ``SimpleQueue`` has no
    such lock.

    Args:
        most: values that wait, before ``put`` waits too; by default any number. Each thread may add one more.

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
        """Hand a value over, as soon as there is room for it; return False, without it, where nobody wants any more."""
        while not self.closed and self._most is not None and self._values.qsize() >= self._most:
            time.sleep(_PAUSE_SECONDS)
        if not self.closed:
            self._values.put(value)
        return not self.closed

    def get(self, timeout: float | None = None) -> Value:
        """Return the next value; wait for it.

        Args:
            timeout: seconds to wait at most.

        Raises:
            queue.Empty: there was none in time.
        """
        return self._values.get(timeout=timeout)

    def close(self) -> None:
        """Want no more values: the threads that put some may end."""
        self.closed = True


@contextmanager
def running(works: Iterable[Callable[[], None]], ready: Handover[Any]) -> Iterator[None]:
    """Run functions that put values into ``ready``, each in a thread; at the end, close it and wait for them."""
    threads = [Thread(target=work, daemon=True) for work in works]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        ready.close()
        for thread in threads:
            if thread.is_alive():  # an interruption may have come before it was started
                thread.join()


def call_in_thread(function: Callable[[], Value], *, stop: Callable[[], None]) -> Value:
    """Return what a function returns that runs in a thread of its own, where no signal interrupts it.

    Args:
        stop: called where the waiting is interrupted; lets the function end soon, and its end is waited for.

    Raises:
        What the function raises.
    """
    result: Handover[tuple[Value | None, BaseException | None]] = Handover()

    def call() -> None:
        try:
            result.put((function(), None))
        except BaseException as error:  # handed to the caller's thread, which raises it
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
