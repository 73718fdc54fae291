"""A process that decodes videos for the server: ``python -m mesm_core.web.child``, started by ``workers``.

A file that crashes the decoder, or makes it hang, therefore does not end the server. Tasks come as lines of JSON on
standard input, and events leave as lines of JSON on standard output; the last event of a task has the key ``end``.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mesm_core.errors import MesmError, OutputError
from mesm_core.files import replacing, write_atomically
from mesm_core.video.cut import cut
from mesm_core.video.picture import jpeg_at
from mesm_core.video.playable import read_header

if TYPE_CHECKING:  # imported for extraction only, so that processes that cut clips start fast
    from mesm_core.extraction.cached import CachedExtraction

Task = Mapping[str, Any]
Event = Mapping[str, Any]
Send = Callable[[Event], None]
_extraction: list[CachedExtraction] = []


def header(task: Task, _: Send) -> Event:
    """Read a video's header."""
    return asdict(read_header(Path(task["path"])))


def thumbnail(task: Task, _: Send) -> Event:
    """Write one frame of a video as a JPEG picture."""
    picture = jpeg_at(Path(task["path"]), task["time"], width=task["width"])
    write_atomically(Path(task["target"]), picture)
    return {}


def clip(task: Task, _: Send) -> Event:
    """Write a part of a video as an .mp4 file."""
    with replacing(Path(task["target"])) as temporary:
        cut(Path(task["path"]), temporary, task["start"], task["end"], container="mp4", preview=task["preview"])
    return {}


def extract(task: Task, send: Send) -> Event:
    """Extract the features of videos into the cache, and report each video."""
    from mesm_core.caches import default_notes
    from mesm_core.extraction.estimate import expected_frames
    from mesm_core.extraction.pipeline import Failed, Frames
    from mesm_core.extraction.sources import VideoFile

    extraction = _extraction_of(task)
    paths = [Path(path) for path in task["paths"]]
    send({"total": expected_frames(paths)})
    notes = default_notes()
    for event in extraction.run([VideoFile(path.stem, path) for path in paths]):
        if isinstance(event, Frames):
            send({"frames": event.count})
        elif isinstance(event, Failed):
            send({"failed": str(event.video.path), "reason": event.reason})
        elif event.cache_error:
            send({"failed": str(event.video.path), "reason": f"The features could not be stored: {event.cache_error}"})
        else:
            send({"done": str(event.video.path), "content": notes.content_hash(event.video.path, what="video")})
    return {}


def _extraction_of(task: Task) -> CachedExtraction:
    """Return the extraction of the task's model, which is the same for all tasks of a server."""
    from mesm_core.inference.locate import plan_extraction, plan_location

    if not _extraction:
        plan = plan_location(
            task["model"],
            weights={name: Path(path) for name, path in task["weights"].items()},
            clip=Path(task["clip"]) if task["clip"] else None,
            clip_len=Fraction(task["clip_len"]) if task["clip_len"] else None,
            root=Path(task["root"]) if task["root"] else None,
        )
        _extraction.append(plan_extraction(plan, device=task["device"], precision=task["precision"])[0])
    return _extraction[0]


TASKS: dict[str, Callable[[Task, Send], Event]] = {
    "header": header,
    "thumbnail": thumbnail,
    "clip": clip,
    "extract": extract,
}


def work(source: IO[str], target: IO[str]) -> None:
    """Do the tasks of ``source`` in turn, and write their events to ``target``. Exits when ``source`` ends."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in source:
            lines.put(line)
        os._exit(0)  # the server has ended, whatever is under way here

    def send(event: Event) -> None:
        target.write(json.dumps(event) + "\n")
        target.flush()

    # As an exception, the signal lets open outputs be removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    threading.Thread(target=read, daemon=True).start()
    while True:
        task = json.loads(lines.get())
        try:
            send({"end": "done", **TASKS[task["task"]](task, send)})
        except MesmError as error:
            kind = "output" if isinstance(error, OutputError) else "error"
            send({"end": kind, "message": error.message, "hint": error.hint})
        except Exception:
            send({"end": "fault", "message": traceback.format_exc()})


if __name__ == "__main__":
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to standard error
    work(sys.stdin, events)
