"""Processes that start at once: forked from one that has imported torch and the package."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import mesm_core
from mesm_cli.entry import main

IMPORTED_LATE = ("torch._dynamo", "torch.distributed.nn.functional", "mesm_cli.app")
"""What training imports when it needs it."""
STREAMS = ("out", "err")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [module.name for module in pkgutil.walk_packages(mesm_core.__path__, "mesm_core.")] + [*IMPORTED_LATE, __name__]
)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus the signal that ended it, and what it printed."""

    code: int
    out: str
    err: str


class Forked:
    """A process that calls a function of a module. What it prints is kept.

    Args:
        environment: variables that are set for it.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forked-")
        self._process = SERVER.Process(target=_run, args=(self._folder.name, environment, function, arguments))
        self._process.start()

    def running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.is_alive()

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self._process.pid, number)

    def wait(self, seconds: float = 240) -> bool:
        """Wait for its end; return whether it ended within that time."""
        self._process.join(seconds)
        return not self.running()

    def end(self) -> Ended:
        """Wait for its end."""
        if not self.wait():
            self._process.kill()
            self.wait()
        assert self._process.exitcode is not None
        out, err = ((Path(self._folder.name) / name).read_text(errors="replace") for name in STREAMS)
        self._folder.cleanup()
        return Ended(self._process.exitcode, out, err)


def mesm(words: Sequence[str]) -> None:
    """Run the command line as the program does, and exit."""
    sys.argv = ["mesm", *words]
    main()


def _run(folder: str, environment: dict[str, str], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    for number, name in enumerate(STREAMS, start=1):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    os.environ |= environment
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
    torch.set_num_threads(1)
    function(*arguments)
