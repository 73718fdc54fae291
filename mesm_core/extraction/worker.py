"""A worker process of an extraction: ``python -m mesm_core.extraction.worker``, started by ``processes``."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import IO

from mesm_core.backbones.registry import build_backbone
from mesm_core.devices import build_device
from mesm_core.errors import MesmError
from mesm_core.extraction.cache import default_cache
from mesm_core.extraction.parts import Parts
from mesm_core.extraction.processes import Share, event_line
from mesm_core.extraction.work import extract_parts


def work(source: IO[str], target: IO[str]) -> None:
    """Read a share from ``source``, process it, and write its events to ``target``; exit when ``source`` ends."""
    share = Share.from_json(source.readline())

    def end_with_input() -> None:
        # os.read takes no lock of the file object, which the interpreter needs at its end.
        while os.read(source.fileno(), 4096):
            pass
        os._exit(1)

    threading.Thread(target=end_with_input, daemon=True).start()
    try:
        device = build_device(share.device)
        backbones = [
            build_backbone(name, weights=path, device=device, precision=share.settings.precision)  # type: ignore[arg-type]
            for name, path in share.backbones.items()
        ]
        events = extract_parts(
            share.videos,
            backbones,
            settings=share.settings,
            parts=Parts(share.folder),
            known=share.known,
            batch_size=share.batch_size,
            decoders=share.decoders,
            cache=default_cache() if share.cached else None,
        )
        for event in events:
            target.write(event_line(event) + "\n")
            target.flush()
    except MesmError as error:
        line = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        target.write(json.dumps(line) + "\n")
        target.flush()


if __name__ == "__main__":
    work(sys.stdin, sys.stdout)
    os._exit(0)  # a thread still waits for the input's end
