"""Worker processes that each extract a share of the videos and report events as JSON lines.

A worker ends when its standard input is closed, so it never outlives the main process. Each worker has its own session:
Ctrl-C reaches only the main process, which then ends the workers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from mesm_core.devices import build_device
from mesm_core.errors import DataError, DeviceError, FeatureError, MesmError, OutputError
from mesm_core.extraction.pipeline import Failed, Frames
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.work import Done, Event, Known
from mesm_core.handover import Handover
from mesm_core.inputs import parse_json

WORKER = "mesm_core.extraction.worker"
RAY_DRIVER = "mesm_core.extraction.cluster"
SECONDS_TO_END = 10.0
RAY_SECONDS_TO_END = 60.0
"""A cluster that is being started must be complete before it can be ended."""
_ERRORS: dict[str, type[MesmError]] = {
    kind.__name__: kind for kind in (DataError, DeviceError, FeatureError, OutputError)
}


@dataclass(frozen=True)
class Share:
    """The work of one process; ``backbones``: weights file by name; ``folder``: the folder of parts; ``cached``:
    whether features are taken from the cache; ``ray``: address of the cluster that extracts the videos, with workers
    that have weights with these ``hashes``, or None."""

    videos: Sequence[VideoFile]
    backbones: Mapping[str, Path | None]
    device: str
    settings: Settings
    folder: Path
    known: Known
    batch_size: int
    decoders: int
    cached: bool = False
    ray: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return it as one line of JSON."""
        settings = self.settings
        return json.dumps(
            {
                "videos": [[video.name, str(video.path)] for video in self.videos],
                "backbones": {name: None if path is None else str(path) for name, path in self.backbones.items()},
                "device": self.device,
                "settings": [str(settings.clip_len), settings.interpolation, settings.dtype, settings.precision],
                "folder": str(self.folder),
                "known": self.known,
                "batch_size": self.batch_size,
                "decoders": self.decoders,
                "cached": self.cached,
                "ray": self.ray,
                "hashes": self.hashes,
            }
        )

    @classmethod
    def from_json(cls, line: str) -> Share:
        """Return the share that ``as_json`` wrote."""
        found = json.loads(line)
        clip_len, interpolation, dtype, precision = found["settings"]
        return cls(
            videos=[VideoFile(name, Path(path)) for name, path in found["videos"]],
            backbones={name: None if path is None else Path(path) for name, path in found["backbones"].items()},
            device=found["device"],
            settings=Settings(Fraction(clip_len), interpolation, dtype, precision),
            folder=Path(found["folder"]),
            known=found["known"],
            batch_size=found["batch_size"],
            decoders=found["decoders"],
            cached=found["cached"],
            ray=found["ray"],
            hashes=found["hashes"],
        )


def event_line(event: Event) -> str:
    """Return an event as one line of JSON."""
    if isinstance(event, Frames):
        return json.dumps({"frames": event.count})
    if isinstance(event, Failed):
        return json.dumps({"failed": event.video.name, "reason": event.reason, "content": event.content})
    return json.dumps(
        {"done": event.video.name, "content": event.content, "rows": event.rows, "warning": event.warning}
    )


def process_devices(device: str, processes: int) -> list[str]:
    """Return the device of each process: one GPU each, or the CPU for all.

    Raises:
        DeviceError: there are fewer GPUs than processes, or one GPU is named for several processes.
    """
    chosen = build_device(device)
    if processes == 1 or chosen.type == "cpu":
        return [str(chosen)] * processes
    if ":" in device:
        raise DeviceError(f"--device {device} names one GPU, but each of {processes} processes needs its own.")
    if torch.cuda.device_count() < processes:
        raise DeviceError(
            f"--processes {processes}: one GPU each, but this machine has {torch.cuda.device_count()}.",
            hint="Start fewer processes, or run them on the CPU: --device cpu.",
        )
    return [f"cuda:{number}" for number in range(processes)]


class _Worker:
    """A process and the videos that it has not reported yet."""

    def __init__(self, number: int, share: Share, lines: Handover[tuple[_Worker, str | None]], threads: int) -> None:
        self.number = number
        self.left = {video.name: video for video in share.videos}
        self._patience = SECONDS_TO_END if share.ray is None else RAY_SECONDS_TO_END
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER if share.ray is None else RAY_DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._lines = lines
        self._reader = threading.Thread(target=self._read, args=(share.as_json(),), daemon=True)
        self._reader.start()

    def _read(self, share: str) -> None:
        assert self._output is not None
        try:
            self._input.write(share + "\n")
            self._input.flush()
        except OSError:
            pass  # the worker has ended; its exit code is reported below
        for line in self._output:
            self._lines.put((self, line))
        self._lines.put((self, None))

    def ended(self) -> str | None:
        """Wait for the process to end; return how it failed, or None."""
        code = self._process.wait()
        if code == 0:
            return None
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        return f"process {self.number} ended with {how}; --resume extracts its videos"

    def ask_to_end(self) -> None:
        """Close the input of the process, which ends it."""
        with suppress(OSError):
            self._input.close()

    def stop(self) -> None:
        """Wait for the process to end, and terminate it if it does not."""
        try:
            self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._output is not None:
            self._output.close()


def run_processes(shares: Sequence[Share]) -> Iterator[Event]:
    """Run each share in its own process and yield the events of all processes.

    If a process dies, its remaining videos are reported as failed and the other processes continue.

    Raises:
        MesmError: an error that stops a process, such as a full disk; all processes are ended.
    """
    lines: Handover[tuple[_Worker, str | None]] = Handover()
    threads = max(1, (os.cpu_count() or 1) // max(1, len(shares)))
    workers: list[_Worker] = []
    try:
        for number, share in enumerate(shares, start=1):
            workers.append(_Worker(number, share, lines, threads))
        running = len(workers)
        while running:
            worker, line = lines.get()
            if line is not None:
                yield _event(worker, line)
                continue
            running -= 1
            how = worker.ended()
            for video in worker.left.values():
                yield Failed(video, f"{video.path}: {how or 'its process ended before extracting it'}")
    finally:
        for worker in workers:
            worker.ask_to_end()
        for worker in workers:
            worker.stop()


def read_reply(line: str, who: str) -> dict[str, Any]:
    """Return what a process wrote.

    Args:
        who: the process, for the message if the line is no JSON.

    Raises:
        MesmError: it wrote an error.
    """
    found: dict[str, Any] = parse_json(line, who, error=FeatureError, surrogates=True)
    if "error" in found:
        raise _ERRORS.get(found["error"], FeatureError)(found["message"], hint=found["hint"])
    return found


def _event(worker: _Worker, line: str) -> Event:
    found = read_reply(line, f"process {worker.number}")
    if "frames" in found:
        return Frames(found["frames"])
    if "failed" in found:
        return Failed(worker.left.pop(found["failed"]), found["reason"], found["content"])
    return Done(worker.left.pop(found["done"]), found["content"], found["rows"], found["warning"])
