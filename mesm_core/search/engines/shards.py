"""Files of segments that are memory-mapped. A shard is never changed after it is written.

The file has a magic number, the length of a header (8 bytes, little-endian), the header in JSON
(``{"width": D, "videos": [[id, segments], …]}``), zeros up to a multiple of 64 bytes, the spans of all segments
(n, 2) float64, and their vectors (n, D) float16, both little-endian.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mesm_core.errors import DataError
from mesm_core.files import library_output
from mesm_core.inputs import parse_json, reading
from mesm_core.search.segments import Segments

MAGIC = b"MESMSEG1"
ALIGNED = 64
SPAN, VECTOR = np.dtype("<f8"), np.dtype("<f2")
DAMAGED = "Build the index again, or restore this file from a copy."


class Shard:
    """A shard, open for reading.

    ``path``; ``videos``: ids in the order of their rows; ``starts``: (videos + 1,) int64, first row of each video and
    the number of all rows; ``spans``: (n, 2) float64; ``vectors``: (n, D) float16. The last two are memory-mapped.

    Raises:
        DataError: the file is missing or damaged, or has vectors of another width.
    """

    def __init__(self, path: Path, *, width: int) -> None:
        self.path = path
        with reading(path, DataError, what="segments of the index", hint=DAMAGED), path.open("rb") as file:
            magic, length = file.read(len(MAGIC)), int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            header = file.read(length) if magic == MAGIC and length <= size else b""
            videos = _videos(header, path, width=width)
            self.videos = [video for video, _ in videos]
            self.starts = np.cumsum([0, *(count for _, count in videos)])
            rows = int(self.starts[-1])
            at = _aligned(len(MAGIC) + 8 + length)
            self.size = at + rows * (2 * SPAN.itemsize + width * VECTOR.itemsize)
            if size != self.size:
                raise DataError(f"{path} has {size:,} bytes instead of {self.size:,}: it is damaged.", hint=DAMAGED)
            # Copy-on-write, since torch warns about arrays that cannot be written; nothing writes to them.
            # The open file is mapped, since a writer may have removed its name meanwhile.
            self.spans = np.memmap(file, SPAN, "c", at, (rows, 2))
            self.vectors = np.memmap(file, VECTOR, "c", at + rows * 2 * SPAN.itemsize, (rows, width))

    def __len__(self) -> int:
        return len(self.vectors)

    def segments(self, number: int) -> Segments:
        """Return the segments of the video with a number; the arrays are views of the file."""
        rows = slice(self.starts[number], self.starts[number + 1])
        return Segments(self.vectors[rows], self.spans[rows])


def write_shard(path: Path, videos: Sequence[tuple[str, Segments]], *, width: int) -> None:
    """Write a shard atomically.

    Args:
        videos: each video's id and its segments, at least one.

    Raises:
        OutputError: the file could not be written.
    """
    header = json.dumps({"width": width, "videos": [[video, len(segments)] for video, segments in videos]}).encode()
    front = MAGIC + len(header).to_bytes(8, "little") + header
    with library_output(path) as file:
        file.write(front.ljust(_aligned(len(front)), b"\0"))
        for _, segments in videos:
            file.write(np.ascontiguousarray(segments.spans, SPAN).data)
        for _, segments in videos:
            file.write(np.ascontiguousarray(segments.vectors, VECTOR).data)


def _videos(header: bytes, path: Path, *, width: int) -> list[tuple[str, int]]:
    """Return the videos of a header with their numbers of segments."""
    damaged = DataError(f"{path} is not a file of segments, or it is damaged.", hint=DAMAGED)
    if not header:
        raise damaged
    with reading(path, DataError, hint=DAMAGED):
        found = parse_json(header.decode(), path)
    videos = found.get("videos") if isinstance(found, dict) else None
    if not isinstance(videos, list) or not videos or found.get("width") != width:
        raise damaged
    for entry in videos:
        match entry:
            case [str(), int(count)] if count > 0:
                continue
            case _:
                raise damaged
    return [(video, count) for video, count in videos]


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
