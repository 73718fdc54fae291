"""The manifest of an index: a JSON file with everything except vectors and features, replaced atomically."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mesm_core.errors import DataError
from mesm_core.files import write_atomically
from mesm_core.inputs import read_json, shown

State = dict[str, Any]
"""What an engine must know to open its data again, as JSON-able values."""
FILE = "index.json"
FORMAT = "mesm index"
VERSION = 1
"""Incremented when older versions of mesm cannot read the file."""
ID_LETTERS = 16
"""Hexadecimal digits of a video's id: the first ones of its content's hash."""
HINT = "Restore it from a copy, or build the index again in another folder."


@dataclass(frozen=True, slots=True)
class Network:
    """A backbone of an index: its name, the hash of its weights (None if unknown), and the width of its features."""

    name: str
    weights: str | None
    width: int

    def __str__(self) -> str:
        return f"{self.name}, weights {self.weights[:12] if self.weights else 'unknown'}, width {self.width}"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the features of a video by one backbone are.

    ``dataset``: name of the dataset if ``file`` is a feature file outside of the index, else None; ``file``: path of
    the feature file, or key of the features in the index.
    """

    backbone: str
    file: str
    dataset: str | None = None


@dataclass(frozen=True, slots=True)
class IndexedVideo:
    """A video of an index.

    ``id``: stable and safe in URLs; ``path``: absolute, of the video, or of its feature file if only that was given;
    ``name``: of the file without its suffix, or of the dataset in the feature file; ``content``: SHA-256 of the video
    file, or of its features; ``size`` in bytes and ``mtime`` in nanoseconds of the file when it was read; ``duration``
    and ``clip_len`` (of a row of features) in seconds; ``segments``: their number; ``added``: UTC, ISO 8601;
    ``kept``: its features, those of the searched backbone first.
    """

    id: str
    path: Path
    name: str
    content: str
    size: int
    mtime: int
    duration: float
    clip_len: float
    segments: int
    added: str
    kept: tuple[Kept, ...]

    @property
    def is_video(self) -> bool:
        """Whether ``path`` is a video, not a feature file."""
        return self.kept[0].dataset is None or Path(self.kept[0].file) != self.path

    def source_state(self) -> str:
        """Return ``present``, ``missing`` or ``changed``: the file as it is now, by its size and time."""
        try:
            found = self.path.stat()
        except (OSError, ValueError):
            return "missing"
        return "present" if (found.st_size, found.st_mtime_ns) == (self.size, self.mtime) else "changed"

    def as_json(self) -> dict[str, Any]:
        """Return the video as JSON-able values."""
        kept = [[each.backbone, each.file, each.dataset] for each in self.kept]
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"path": str(self.path), "kept": kept}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> IndexedVideo:
        """Return the video that ``as_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: the values are of another form.
        """
        kept = tuple(Kept(str(b), str(f), None if d is None else str(d)) for b, f, d in found["kept"])
        video = cls(**(dict(found) | {"path": Path(found["path"]), "kept": kept}))
        numbers = (video.duration, video.clip_len)
        texts = (video.id, video.name, video.content, video.added)
        counts = (video.size, video.mtime, video.segments)
        sound = (
            all(isinstance(number, int | float) and 0 < number < math.inf for number in numbers)
            and all(isinstance(text, str) for text in texts)
            and all(type(number) is int for number in counts)
        )
        if not sound or not kept or video.segments < 1:
            raise ValueError(f"the video {shown(video.id)} has values that are not valid")
        return video


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of the file.

    ``networks``: the backbones whose features are kept; the vectors are made of those of the first one. ``clip_len``:
    seconds per row of extracted features, as a fraction such as ``1/3``; ``interpolation`` and ``dtype``: of extracted
    features; ``seconds`` and ``overlap`` of segments; ``engine``: its name; ``state``: of the engine; ``generation``:
    incremented with every change; ``videos``: by id.
    """

    networks: tuple[Network, ...]
    clip_len: str
    interpolation: str
    dtype: str
    seconds: float
    overlap: float
    engine: str
    state: State = field(default_factory=dict)
    generation: int = 0
    videos: Mapping[str, IndexedVideo] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Width of the vectors."""
        return self.networks[0].width

    def changed(self, *, videos: Mapping[str, IndexedVideo], state: State) -> Manifest:
        """Return the next manifest, with other videos and another state of the engine."""
        return replace(self, videos=videos, state=state, generation=self.generation + 1)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an index.

    Raises:
        DataError: the folder has none, or it is damaged or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"{folder} is not an index: it has no {FILE}.", hint="`mesm index build` makes one.")
    found = read_json(path, error=DataError, what="manifest of an index", hint=HINT, surrogates=True)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{path} is not the manifest of an index.", hint=HINT)
    if found.get("version") != VERSION:
        raise DataError(
            f"{path} has version {shown(found.get('version'))} of the format; this mesm reads version {VERSION}.",
            hint="Use the mesm that wrote it, or build the index again in another folder.",
        )
    try:
        return _manifest(found)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path} is damaged: {error}.", hint=HINT) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of an index, with one line per video.

    Raises:
        OutputError: it could not be written.
    """
    head = {
        "format": FORMAT,
        "version": VERSION,
        "generation": manifest.generation,
        "backbones": [[network.name, network.weights, network.width] for network in manifest.networks],
        "clip_len": manifest.clip_len,
        "interpolation": manifest.interpolation,
        "dtype": manifest.dtype,
        "segment_seconds": manifest.seconds,
        "overlap": manifest.overlap,
        "engine": manifest.engine,
        "state": manifest.state,
    }
    lines = ",\n".join(json.dumps(video.as_json()) for video in manifest.videos.values())
    text = f'{json.dumps(head)[:-1]}, "videos": [\n{lines}\n]}}\n'
    write_atomically(folder / FILE, text.encode())


def _manifest(found: Mapping[str, Any]) -> Manifest:
    networks = tuple(Network(str(n), None if h is None else str(h), int(w)) for n, h, w in found["backbones"])
    videos = [IndexedVideo.from_json(entry) for entry in found["videos"]]
    seconds, overlap = float(found["segment_seconds"]), float(found["overlap"])
    if not networks or not 0 < seconds < math.inf or not 0 <= overlap < 1 or not isinstance(found["state"], dict):
        raise ValueError("its settings are not valid")
    return Manifest(
        networks=networks,
        clip_len=str(found["clip_len"]),
        interpolation=str(found["interpolation"]),
        dtype=str(found["dtype"]),
        seconds=seconds,
        overlap=overlap,
        engine=str(found["engine"]),
        state=found["state"],
        generation=int(found["generation"]),
        videos={video.id: video for video in videos},
    )
