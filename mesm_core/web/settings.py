"""Settings and limits of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mesm_core.caches import CLIPS_BYTES

QUERY_CHARACTERS = 500
"""Longest query. Models read at most a few dozen words."""
MOST_RESULTS = 100
MOMENTS_OF_A_VIDEO = 3
"""Moments of one video among the results of a search."""
CURVE_POINTS = 2000
"""Points of a saliency curve; longer ones are divided into as many parts, and each gives its maximum."""
CLIP_SECONDS = 300.0
BODY_BYTES = 64 * 1024
NAME_CHARACTERS = 200
THUMBNAIL_WIDTH = 320
MOST_VIDEOS = 100_000


@dataclass(frozen=True)
class WebSettings:
    """Settings of the server.

    ``host``: the address it listens on; ``allowed_hosts``: further names that the Host header may have, and that pages
    may have which send requests; ``token``: demanded from every client, None for no token; ``uploads``: folder for
    uploaded videos, None refuses them; ``max_upload``: bytes of one upload; ``running``: queries that are answered at
    the same time, and clips that are cut; ``waiting``: requests that wait for one of these places, more are refused;
    ``clips``: folder of cut clips and thumbnails; ``clips_bytes``: its limit; ``work_seconds``: longest time of cutting
    a clip; ``report``: called with the description of a fault of the server.
    """

    clips: Path
    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    token: str | None = None
    uploads: Path | None = None
    max_upload: int = 2_000_000_000
    running: int = 2
    waiting: int = 16
    clips_bytes: int = CLIPS_BYTES
    work_seconds: float = 300.0
    report: Callable[[str], None] = lambda _: None
