"""Moving of an index to another engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mesm_core.errors import ConfigError, DataError
from mesm_core.search.engines import Engine, new_state, open_engine
from mesm_core.search.manifest import Manifest, write_manifest
from mesm_core.search.segments import Segments
from mesm_core.search.writer import changing


def move(path: Path, engine: str, uri: str | None = None) -> Iterator[int]:
    """Copy the segments of an index to another engine, compare them, switch to it, and remove the old data.

    Yields:
        The number of videos that were copied or compared: twice as many in the end as the index has.

    Raises:
        ConfigError: the index has this engine, there is no such engine, or its package is not installed; DataError: the
            copy differs, and the index is unchanged; OutputError: another process changes the index, or an engine
            cannot be reached.
    """
    state = new_state(engine, uri)
    with changing(path) as writer:
        before = writer.manifest
        if (before.engine, before.state.get("uri")) == (engine, state.get("uri")):
            raise ConfigError(f"The index {path} has the engine {engine} already.", hint="Name another one.")
        new = replace(before, engine=engine, state=state, generation=before.generation + 1)
        target = open_engine(new, path)
        try:
            done = 0
            for done in _copied(writer.engine, target, before):
                yield done
            new = replace(new, state=target.save())
            for compared in _compared(writer.engine, target, before):
                yield done + compared
            write_manifest(path, new)
        except BaseException:
            target.destroy()
            raise
        finally:
            target.close()
        writer.engine.destroy()


def _copied(source: Engine, target: Engine, manifest: Manifest) -> Iterator[int]:
    videos = (entry for entry in source.vectors() if entry[0] in manifest.videos)
    for done, (video, segments) in enumerate(videos, start=1):
        target.add(video, segments)
        yield done


def _compared(source: Engine, target: Engine, manifest: Manifest) -> Iterator[int]:
    """Compare all segments; raise DataError if any is missing or differs."""
    hashes = {video: _hash(segments) for video, segments in source.vectors() if video in manifest.videos}
    for done, (video, segments) in enumerate(target.vectors(), start=1):
        if hashes.pop(video, None) != _hash(segments):
            raise DataError(
                f"The copied segments of the video {video} differ.", hint="The index is unchanged; try again."
            )
        yield done
    if hashes:
        raise DataError(f"{len(hashes)} videos were not copied.", hint="The index is unchanged; try again.")


def _hash(segments: Segments) -> bytes:
    vectors = np.ascontiguousarray(segments.vectors, np.float16).tobytes()
    return hashlib.sha256(vectors + np.ascontiguousarray(segments.spans, np.float64).tobytes()).digest()
