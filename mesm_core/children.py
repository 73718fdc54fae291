"""Commands that run at the same time in child processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import IO

from mesm_core.handover import Handover


@dataclass(frozen=True)
class Command:
    """A command to run: its words, and the environment variables that it has besides those of this process."""

    words: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Line:
    """A line that a child printed; ``error``: on standard error."""

    name: str
    text: str
    error: bool


@dataclass(frozen=True)
class Ended:
    """A child has ended; ``code``: its exit code, 128 plus the signal's number if a signal ended it."""

    name: str
    code: int


class Children:
    """Runs commands, several at once, and passes on what they print.

    The children do not receive the signals of the terminal; ``stop`` sends them one. Their standard input is a pipe
    that stays open as long as this process lives, so that a child can notice that it is alone.

    Args:
        commands: by name, in the order of their start; most: number of commands that run at once.
    """

    def __init__(self, commands: Mapping[str, Command], *, most: int) -> None:
        self._waiting = dict(commands)
        self._most = most
        self._running: dict[str, subprocess.Popen[str]] = {}

    def run(self) -> Iterator[Line | Ended]:
        """Run the commands, and yield their lines and their ends. Ends them if the caller stops before the last one."""
        events: Handover[Line | Ended] = Handover()
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._most:
                    name = next(iter(self._waiting))
                    self._start(name, self._waiting.pop(name), events)
                event = events.get()
                if isinstance(event, Ended):
                    del self._running[event.name]
                yield event
        finally:
            self.stop(signal.SIGTERM)
            for child in self._running.values():
                child.wait()

    def stop(self, number: int) -> None:
        """Send a signal to the running children, and start no others. Safe to call from a signal handler."""
        self._waiting.clear()
        for child in list(self._running.values()):
            with suppress(ProcessLookupError):
                child.send_signal(number)

    def _start(self, name: str, command: Command, events: Handover[Line | Ended]) -> None:
        child = subprocess.Popen(
            command.words,
            env=os.environ | command.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        self._running[name] = child
        Thread(target=_follow, args=(name, child, events), daemon=True).start()


def _follow(name: str, child: subprocess.Popen[str], events: Handover[Line | Ended]) -> None:
    """Pass on the lines of a child, then its end."""
    assert child.stdout is not None
    assert child.stderr is not None

    def pass_on(stream: IO[str], *, error: bool) -> None:
        for line in stream:
            events.put(Line(name, line.rstrip("\n"), error))

    errors = Thread(target=pass_on, args=(child.stderr,), kwargs={"error": True}, daemon=True)
    errors.start()
    pass_on(child.stdout, error=False)
    errors.join()
    code = child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()
    events.put(Ended(name, code if code >= 0 else 128 - code))
