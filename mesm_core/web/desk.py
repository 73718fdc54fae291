"""Blocking work of requests in a few threads, with a limit of the requests that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class BusyError(Exception):
    """Too many requests wait already."""


class Desk:
    """Runs functions in threads. Used from one event loop.

    Args:
        running: functions that run at the same time; waiting: further ones that wait; more are refused.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self._most = running + waiting
        self._taken = 0
        self._pool = ThreadPoolExecutor(running, thread_name_prefix="mesm-desk")

    async def do(self, work: Callable[[], Result]) -> Result:
        """Return the result of a function.

        Raises:
            BusyError: too many wait; also any exception of the function.
        """
        if self._taken >= self._most:
            raise BusyError
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Drop what waits, and end the threads when their work is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)
