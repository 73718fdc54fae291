"""Thumbnails, clips and headers of videos, made by child processes; pictures and clips are cached on disk."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mesm_core.errors import DataError
from mesm_core.files import make_folder
from mesm_core.video.playable import Header
from mesm_core.web.collection import WebVideo
from mesm_core.web.settings import THUMBNAIL_WIDTH
from mesm_core.web.workers import Workers

PICTURE_SECONDS = 30.0
LOCKS = 64
DAY = 86_400


class Media:
    """Makes and caches pictures and clips. Methods may be called from several threads, and block.

    Args:
        folder: of the cache, created if it does not exist; limit: its size in bytes.
        workers: clips that are cut at the same time; seconds: after which cutting one is ended.
    """

    def __init__(self, folder: Path, *, limit: int, workers: int, seconds: float) -> None:
        self._folder = folder
        self._limit = limit
        self._seconds = seconds
        # Pictures have a process of their own, and do not wait for clips.
        self._pictures, self._clips = Workers(1), Workers(workers)
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._headers: dict[tuple[object, ...], Header] = {}

    def header(self, video: WebVideo) -> Header:
        """Return what a video's header says.

        Raises:
            DataError: it is not a readable video.
        """
        key = _identity(video)
        if key not in self._headers:
            with self._pictures.one() as worker:
                task = {"task": "header", "path": str(video.path)}
                self._headers[key] = Header(**_named(video, lambda: worker.run(task, seconds=PICTURE_SECONDS)))
        return self._headers[key]

    def thumbnail(self, video: WebVideo, seconds: float) -> Path:
        """Return a file with the frame at a time as JPEG.

        Raises:
            DataError: the video cannot be read.
        """
        task = {"task": "thumbnail", "path": str(video.path), "time": seconds, "width": THUMBNAIL_WIDTH}
        return self._made(self._pictures, video, task, ".jpg", PICTURE_SECONDS)

    def clip(self, video: WebVideo, start: float, end: float, *, preview: bool = False) -> Path:
        """Return an .mp4 file with the part of a video between two times in seconds, which all browsers play.

        Args:
            preview: smaller and of less quality, but made faster.

        Raises:
            DataError: the video cannot be read, or has no frame between the two times; TimeLimitError: it was ended.
        """
        task = {"task": "clip", "path": str(video.path), "start": start, "end": end, "preview": preview}
        return self._made(self._clips, video, task, ".mp4", self._seconds)

    def close(self) -> None:
        """End the processes."""
        self._pictures.close()
        self._clips.close()

    def _made(self, workers: Workers, video: WebVideo, task: Mapping[str, Any], suffix: str, seconds: float) -> Path:
        key = hashlib.sha256(repr((_identity(video), sorted(task.items()))).encode("utf-8", "surrogateescape"))
        target = self._folder / f"{key.hexdigest()[:40]}{suffix}"
        # Requests for the same file wait for the first of them.
        with self._locks[key.digest()[0] % LOCKS]:
            if target.is_file():
                os.utime(target)
                return target
            make_folder(self._folder)
            with workers.one() as worker:
                _named(video, lambda: worker.run({**task, "target": str(target)}, seconds=seconds))
            trim(self._folder, self._limit, keep=target)
        return target


def trim(folder: Path, limit: int, *, keep: Path | None = None) -> None:
    """Remove the files that were not used for longest until the others fit, and drafts of ended processes."""
    entries = []
    for path in folder.iterdir():
        with suppress(OSError):
            status = path.stat()
            if path.name.endswith("part"):
                if time.time() - status.st_mtime > DAY:
                    path.unlink()
            elif path != keep:
                entries.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in entries) + (keep.stat().st_size if keep is not None else 0)
    for _, size, path in sorted(entries):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size


def _named(video: WebVideo, work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the result of work on a video; errors name the video, not its path, which clients need not know."""
    try:
        return work()
    except DataError as error:
        raise DataError(error.message.replace(str(video.path), video.name), hint=error.hint) from error


def _identity(video: WebVideo) -> tuple[object, ...]:
    try:
        found = video.path.stat()
    except OSError as error:
        raise DataError(f"The file of {video.name} is gone.") from error
    return str(video.path), found.st_size, found.st_mtime_ns
