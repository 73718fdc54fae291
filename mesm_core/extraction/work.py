"""Extracts features into parts: one file per video and backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from mesm_core.backbones.protocol import Backbone, Named, VideoInfo
from mesm_core.data.npy_files import name_problem
from mesm_core.errors import FeatureError, OutputError
from mesm_core.extraction.cache import FeatureCache
from mesm_core.extraction.parts import Parts
from mesm_core.extraction.pipeline import Extracted, Failed, Frames, extract
from mesm_core.extraction.settings import About, Settings
from mesm_core.extraction.sources import VideoFile, content_hash
from mesm_core.files import make_folder
from mesm_core.places import could_not_write, explained
from mesm_core.video.rows import Pass

AnyBackbone = TypeVar("AnyBackbone", bound=Named)
LOCK = ".lock"
Known = Mapping[str, Mapping[str, str]]
"""Backbone -> video -> content hash of existing features with the same settings."""


@dataclass(frozen=True, slots=True)
class Done:
    """A video whose features are stored.

    ``content``: hash of the file; ``rows``: number of rows by backbone that was run, empty if all features existed;
    ``warning``: description of the damage of the file, or empty.
    """

    video: VideoFile
    content: str
    rows: dict[str, int]
    warning: str = ""


Event = Frames | Failed | Done


def extract_parts(
    videos: Sequence[VideoFile],
    backbones: Sequence[Backbone],
    *,
    settings: Settings,
    parts: Parts,
    known: Known,
    batch_size: int,
    decoders: int,
    cache: FeatureCache | None = None,
) -> Iterator[Event]:
    """Extract the features that are neither known nor among the parts, and store those of each video as a part.

    Args:
        batch_size: samples per batch; decoders: number of decoding threads.
        cache: features in it become parts without extraction.

    Raises:
        OutputError: a part could not be written.
    """
    hashes: dict[str, str] = {}

    def remaining(video: VideoFile, wanted: Sequence[Backbone]) -> list[Backbone]:
        refuse_name(video)
        content = hashes[video.name] = content_hash(video.path)
        return missing(video, content, wanted, settings=settings, parts=parts, known=known, cache=cache)

    by_name = {backbone.name: backbone for backbone in backbones}
    events = extract(
        videos,
        [backbones] * len(videos),
        settings=settings,
        batch_size=batch_size,
        decoders=decoders,
        select=remaining,
    )
    for event in events:
        if isinstance(event, Failed):
            yield replace(event, content=hashes.get(event.video.name))
        elif isinstance(event, Extracted):
            yield store(event, hashes[event.video.name], by_name, settings, parts)
        else:
            yield event


def refuse_name(video: VideoFile) -> None:
    """Raise FeatureError if features cannot have the name of the video."""
    problem = name_problem(video.name)
    if problem is not None:
        raise FeatureError(problem)


def missing(
    video: VideoFile,
    content: str,
    wanted: Sequence[AnyBackbone],
    *,
    settings: Settings,
    parts: Parts,
    known: Known,
    cache: FeatureCache | None,
) -> list[AnyBackbone]:
    """Return the backbones whose features of a video are neither known nor among the parts.

    Args:
        content: the hash of the file; cache: features in it become parts.
    """
    return [
        backbone
        for backbone in wanted
        if known.get(backbone.name, {}).get(video.name) != content
        and not _stored(settings.key(backbone, content), parts, cache)
    ]


def _stored(key: str, parts: Parts, cache: FeatureCache | None) -> bool:
    """Return whether features are among the parts, after copying them from the cache if they are only there."""
    if parts.has(key):
        return True
    found = None if cache is None else cache.read(key)
    if found is not None:
        parts.write(key, *found)
    return found is not None


def store(
    event: Extracted, content: str, backbones: Mapping[str, AnyBackbone], settings: Settings, parts: Parts
) -> Done | Failed:
    """Write a video's features as parts.

    Args:
        content: the hash of the file; backbones: by name, at least those that the video has features of.

    Raises:
        OutputError: a part could not be written.
    """
    video, decoding = event.video, event.decoding
    try:
        kept = {name: settings.stored(features) for name, features in event.features.items()}
    except FeatureError as error:
        return Failed(video, f"{video.path}: {error}", content)
    about = About(float(decoding.end), video.path.name, content, decoding.frames, decoding.skipped_packets)
    for name, features in kept.items():
        parts.write(settings.key(backbones[name], content), features, about.as_json())
    rows = {name: len(features) for name, features in kept.items()}
    return Done(video, content, rows, damage_warning(decoding, float(settings.clip_len)) if rows else "")


def check_rows(backbones: Sequence[Backbone], settings: Settings) -> None:
    """Raise FeatureError if a backbone does not support rows of this length."""
    if settings.clip_len <= 0:
        raise FeatureError(f"Rows of {float(settings.clip_len):g} seconds: they must be longer than 0.")
    for backbone in backbones:
        backbone.sampler(settings.clip_len, VideoInfo(None))


def damage_warning(decoding: Pass, clip_len: float) -> str:
    """Return a description of the loss in a damaged video, or an empty text."""
    in_header, end = decoding.header_duration, float(decoding.end)
    short = in_header is not None and in_header - end > max(1.0, clip_len)
    if not short and not decoding.skipped_packets:
        return ""
    skipped = f"{decoding.skipped_packets} damaged packets were skipped; " if decoding.skipped_packets else ""
    expected = f" of the {in_header:.1f} s in its header" if in_header is not None and short else ""
    return f"{skipped}{decoding.frames} frames were recovered, {end:.1f} s{expected}"


class WorkFolder:
    """The folder that holds parts until they are merged; one process locks it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = Parts(path)

    @property
    def has_parts(self) -> bool:
        """Whether an earlier extraction left parts in the folder."""
        return self.path.is_dir() and any(file.name != LOCK for file in self.path.iterdir())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder inside the context, and remove it at the end if it is empty.

        Raises:
            OutputError: another process has locked it, or it cannot be written.
        """
        made = make_folder(self.path)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"Another process is extracting to {self.path}.", hint="Wait for it to end.") from None
        except OSError as error:
            self._remove_if_empty(made)
            raise could_not_write(self.path / LOCK, error) from error
        try:
            self._remove("*.part")
            yield
        finally:
            self._remove("*.part")  # left by a process that was killed while writing
            self._remove_if_empty(made)
            lock.release()

    def clear(self) -> None:
        """Remove all parts."""
        with explained(self.path):
            self._remove("*.npz")

    def _remove(self, pattern: str) -> None:
        for file in self.path.glob(pattern):
            file.unlink(missing_ok=True)

    def _remove_if_empty(self, made: Sequence[Path]) -> None:
        if not self.has_parts:
            (self.path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                for folder in made or [self.path]:
                    folder.rmdir()
