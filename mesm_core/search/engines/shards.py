"""Files of segments that are memory-mapped. A shard is never changed after it is written.

The file has a magic number, the length of a header (8 bytes, little-endian), the header in JSON
(``{"width": D, "videos": [[id, segments], …]}``), zeros, the vectors of all segments (n, D) float16, and their spans
(n, 2) float64, both little-endian. Vectors begin 64 bytes before a multiple of the size of a vector.
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

MAGIC = b"MESMSEG2"
BEFORE = 64
"""Bytes before a multiple of the size of a vector at which vectors begin: products take about 0.6 of the time that they
take with vectors at the multiple itself (benchmarks/search.md)."""
SPAN, VECTOR = np.dtype("<f8"), np.dtype("<f2")
DAMAGED = "Build the index again, or restore this file from a copy."


class Shard:
    """A shard, open for reading.

    ``path``; ``videos``: ids in the order of their rows; ``starts``: (videos + 1,) int64, first row of each video and
    the number of all rows; ``vectors``: (n, D) float16; ``spans``: (n, 2) float64. The last two are memory-mapped.

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
            first = _first_vector(len(MAGIC) + 8 + length, width)
            after = first + rows * width * VECTOR.itemsize
            self.size = after + rows * 2 * SPAN.itemsize
            if size != self.size:
                raise DataError(f"{path} has {size:,} bytes instead of {self.size:,}: it is damaged.", hint=DAMAGED)
            # Copy-on-write, since torch warns about arrays that cannot be written; nothing writes to them.
            # The open file is mapped, since a writer may have removed its name meanwhile.
            self.vectors = np.memmap(file, VECTOR, "c", first, (rows, width))
            self.spans = np.memmap(file, SPAN, "c", after, (rows, 2))

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
        file.write(front.ljust(_first_vector(len(front), width), b"\0"))
        for _, segments in videos:
            file.write(np.ascontiguousarray(segments.vectors, VECTOR).data)
        for _, segments in videos:
            file.write(np.ascontiguousarray(segments.spans, SPAN).data)


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


def _first_vector(front: int, width: int) -> int:
    """Return the offset in bytes of the first vector after a header that ends at ``front``."""
    row = width * VECTOR.itemsize
    return -(-(front + BEFORE) // row) * row - BEFORE
