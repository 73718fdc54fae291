"""Child processes that work for the server, one task at a time each."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mesm_core.errors import DataError, MesmError, OutputError
from mesm_core.files import discard_draft

CHILD = "mesm_core.web.child"
SECONDS_TO_END = 5.0


class WorkerError(Exception):
    """A child process failed for a reason that is not in the video, or died."""


class StoppedError(Exception):
    """A task was cancelled."""


class TimeLimitError(MesmError):
    """A task was ended because of its time limit."""


class Cancel:
    """Cancels work that runs in another thread."""

    def __init__(self) -> None:
        self.cancelled = False
        self._action: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Cancel the work."""
        with self._lock:
            self.cancelled = True
            action = self._action
        action()

    def calls(self, action: Callable[[], object]) -> None:
        """Set what ``cancel`` calls; it is called at once if the work was cancelled before."""
        with self._lock:
            self._action = action
        if self.cancelled:
            action()


class Worker:
    """A child process, which is started for the first task, and again after it died or was ended.

    Calls of ``run`` wait for each other; any thread may call ``close``.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock, self._running = threading.Lock(), threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The number of the process, or None if it is not running."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def run(
        self,
        task: Mapping[str, Any],
        *,
        seconds: float | None = None,
        cancel: Cancel | None = None,
        on_event: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> Mapping[str, Any]:
        """Do a task, and return its last event.

        Args:
            seconds: the process is ended after this time; None for no limit.
            cancel: ends the process when the task is cancelled.
            on_event: called with the events before the last one.

        Raises:
            DataError: the video cannot be read; OutputError: the result cannot be written; TimeLimitError: the time is
            over; StoppedError: the task was cancelled; WorkerError: the process died.
        """
        with self._running:
            return self._run(self._started(), task, seconds, cancel, on_event)

    def _run(
        self,
        process: subprocess.Popen[str],
        task: Mapping[str, Any],
        seconds: float | None,
        cancel: Cancel | None,
        on_event: Callable[[Mapping[str, Any]], None],
    ) -> Mapping[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        cancel, late = cancel or Cancel(), Cancel()
        for stop in (cancel, late):
            stop.calls(lambda: _end(process))
        timer = None if seconds is None else threading.Timer(seconds, late.cancel)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            with suppress(OSError):  # the process has died, which the missing answer shows
                process.stdin.write(json.dumps(dict(task)) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                event = json.loads(line)
                if "end" in event:
                    return _result(event)
                on_event(event)
        finally:
            if timer is not None:
                timer.cancel()
            for stop in (cancel, late):
                stop.calls(lambda: None)
            if cancel.cancelled or late.cancelled:
                process.wait()  # so that the next task starts another one
        code = process.wait()
        if "target" in task:
            discard_draft(Path(task["target"]))
        if cancel.cancelled or self._closed:
            raise StoppedError
        if late.cancelled:
            raise TimeLimitError("This takes too long.", hint="Ask for a shorter part of the video.")
        raise WorkerError(f"A process of the server ended with {code} at the task {task.get('task')}.")

    def close(self) -> None:
        """End the process, and start no others."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is None:
            return
        _end(process)
        process.wait()
        with self._running:  # its reader has seen the end of the output
            self._discard()

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._closed:
                raise StoppedError
            if self._process is None or self._process.poll() is not None:
                self._discard()
                # A session of its own: Ctrl-C reaches only the server, which ends its children.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", CHILD],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            return self._process

    def _discard(self) -> None:
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()


def _end(process: subprocess.Popen[str]) -> None:
    """Ask a process to end, so that it removes what it has written half; kill it if it does not."""
    process.terminate()
    timer = threading.Timer(SECONDS_TO_END, process.kill)
    timer.daemon = True
    timer.start()


def _result(event: dict[str, Any]) -> Mapping[str, Any]:
    end = event.pop("end")
    if end == "output":
        raise OutputError(event["message"], hint=event["hint"])
    if end == "error":
        raise DataError(event["message"], hint=event["hint"])
    if end == "fault":
        raise WorkerError(event["message"])
    return event


class Workers:
    """A few workers that tasks share.

    Args:
        number: tasks that run at the same time; further ones wait.
    """

    def __init__(self, number: int) -> None:
        self._all = [Worker() for _ in range(number)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)

    @contextmanager
    def one(self) -> Iterator[Worker]:
        """Wait for a worker that is idle, and yield it."""
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all processes."""
        for worker in self._all:
            worker.close()
