"""A collection with known answers, and a real server on a free port of this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from starlette.types import ASGIApp

from mesm_core.inference.answers import Answer
from mesm_core.inference.locate import Located, refuse_queries
from mesm_core.web.app import create_app
from mesm_core.web.collection import Found, Hit, Progress, WebVideo
from mesm_core.web.server import WebServer, bind
from mesm_core.web.settings import WebSettings
from mesm_core.web.videos import id_of
from mesm_core.web.workers import Cancel, StoppedError

ROWS = np.array([[2.0, 5.0, 0.9], [6.0, 7.5, 0.4]])


class KnownCollection:
    """Videos with the answers ``ROWS`` to all queries, with confidences of 0.8 and 0.3.

    ``unprepared``: ids of videos that must be prepared first; ``work``: called by every query; ``reason``: of each
    video that cannot be prepared; ``released``: the preparation waits for it.
    """

    def __init__(self, *paths: Path, prepared: bool = True) -> None:
        self._videos = {id_of(path): WebVideo(id_of(path), path.name, path) for path in paths}
        self.unprepared = set() if prepared else set(self._videos)
        self.released = threading.Event()
        self.released.set()
        self.work: Callable[[], None] = lambda: None
        self.reason: dict[str, str] = {}
        self.closed = False

    calibrated = True
    notes = ("A note about the model.",)

    def videos(self) -> Mapping[str, WebVideo]:
        return dict(self._videos)

    def prepared(self, video: str) -> bool:
        return video not in self.unprepared

    def prepare(
        self, videos: Sequence[str], *, progress: Callable[[Progress], None], cancel: Cancel
    ) -> Mapping[str, str]:
        progress(Progress(0.5, 0))
        while not self.released.wait(0.01):
            if cancel.cancelled:
                raise StoppedError
        self.unprepared -= set(videos)
        progress(Progress(1.0, len(videos)))
        return self.reason

    def locate(self, video: str, query: str) -> Located | None:
        refuse_queries([query])
        self.work()
        if video in self.unprepared:
            return None
        saliency = np.linspace(-1, 1, 8, dtype=np.float32)
        sure = np.array([0.8, 0.3])
        answer = Answer(query, ROWS, saliency, 8.0, confidence=0.9, confidences=sure)
        return Located(self._videos[video].path, 8.0, (answer,))

    def search(self, query: str, *, top: int) -> Found:
        refuse_queries([query])
        self.work()
        found = [self.locate(key, query) for key in self._videos]
        hits = [
            Hit(key, moment)
            for key, located in zip(self._videos, found, strict=True)
            if located is not None
            for moment in located.answers[0].moments
        ]
        hits.sort(key=lambda hit: -(hit.moment.confidence or 0))
        return Found(tuple(hits[:top]), sum(located is not None for located in found))

    def add(self, path: Path, name: str) -> WebVideo:
        video = WebVideo(id_of(path), name, path)
        self._videos[video.id] = video
        return video

    def close(self) -> None:
        self.closed = True


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """Serve an application in a thread; yield its address."""
    with bind("127.0.0.1", 0) as listener:
        server = WebServer(app)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def served(collection: Any, folder: Path, **settings: Any) -> Iterator[httpx.Client]:
    """Serve a collection; yield a client that adds the address to paths."""
    chosen = WebSettings(clips=folder / "clips", **settings)
    with running(create_app(collection, chosen)) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client
