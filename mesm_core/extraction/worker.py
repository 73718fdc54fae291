"""A worker process of an extraction: ``python -m mesm_core.extraction.worker``, started by ``processes``."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from mesm_core.backbones.registry import build_backbone
from mesm_core.devices import build_device
from mesm_core.errors import MesmError
from mesm_core.extraction.cache import default_cache
from mesm_core.extraction.parts import Parts
from mesm_core.extraction.processes import Share, event_line
from mesm_core.extraction.work import Event, extract_parts


def work(source: IO[str], target: IO[str]) -> None:
    """Read a share from ``source``, process it, and write its events to ``target``; exit when ``source`` ends."""
    share = Share.from_json(source.readline())
    end_with(source)
    send_events(_extract(share), target)


def end_with(source: IO[str], *, at_end: Callable[[], None] = lambda: None) -> None:
    """Let the process exit when ``source`` ends, after calling ``at_end``."""

    def wait() -> None:
        # os.read takes no lock of the file object, which the interpreter needs at its end.
        while os.read(source.fileno(), 4096):
            pass
        at_end()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def send_events(events: Iterable[Event], target: IO[str]) -> None:
    """Write events to ``target``, and at last the MesmError that ended them, if there is one."""
    try:
        for event in events:
            _send(event_line(event), target)
    except MesmError as error:
        _send(error_line(error), target)


def error_line(error: MesmError) -> str:
    """Return an error as one line of JSON."""
    return json.dumps({"error": type(error).__name__, "message": error.message, "hint": error.hint})


def _send(line: str, target: IO[str]) -> None:
    target.write(line + "\n")
    target.flush()


def _extract(share: Share) -> Iterator[Event]:
    device = build_device(share.device)
    backbones = [
        build_backbone(name, weights=path, device=device, precision=share.settings.precision)  # type: ignore[arg-type]
        for name, path in share.backbones.items()
    ]
    yield from extract_parts(
        share.videos,
        backbones,
        settings=share.settings,
        parts=Parts(share.folder),
        known=share.known,
        batch_size=share.batch_size,
        decoders=share.decoders,
        cache=default_cache() if share.cached else None,
    )


if __name__ == "__main__":
    work(sys.stdin, sys.stdout)
    os._exit(0)  # a thread still waits for the input's end
