"""Building of an index from videos and feature files; resumable."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np

from mesm_core.caches import default_notes
from mesm_core.data.features import prepare_frames
from mesm_core.errors import DeviceError, FeatureError, MesmError, OutputError, listing
from mesm_core.extraction.parts import Parts
from mesm_core.extraction.pipeline import Failed, Frames
from mesm_core.extraction.recipe import CLIP
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.setup import USUAL, Options, Setup
from mesm_core.extraction.sources import VideoFile, video_paths
from mesm_core.extraction.weights import refuse_unused, weights_of
from mesm_core.extraction.work import Done, Event
from mesm_core.search.choices import Choices, refuse_other_networks
from mesm_core.search.given import (
    FeatureFile,
    in_order,
    look_at,
    read_given,
    refuse_speechless,
    split_sources,
)
from mesm_core.search.index import FEATURES
from mesm_core.search.manifest import FILE, ID_LETTERS, IndexedVideo, Kept, Manifest, Network, read_manifest
from mesm_core.search.segments import pool_segments
from mesm_core.search.writer import IndexWriter, changing
from mesm_core.video.scale import Interpolation

COMMIT_SECONDS = 60.0
"""Seconds of work after which the finished videos become part of the index."""
NOTHING = Choices()


@dataclass
class Report:
    """Result of a build.

    ``added``: videos that are new; ``replaced``: those with other content than before; ``already``: those that were in
    the index; ``moved``: those of them whose file has another path; ``copies``: files with the content of another one,
    which is in the index, and that one; ``frames``: decoded; ``bad``: videos without features, with the reasons;
    ``warnings``: partly damaged videos, with descriptions.
    """

    added: int = 0
    replaced: int = 0
    already: int = 0
    moved: int = 0
    copies: list[tuple[str, str]] = field(default_factory=list)
    frames: int = 0
    bad: list[tuple[VideoFile, str]] = field(default_factory=list)
    warnings: list[tuple[VideoFile, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file as it is before it is read: its size in bytes and modification time in nanoseconds."""

    path: Path
    size: int
    mtime: int


class IndexBuild:
    """Adds videos to an index, which is made if it does not exist; ``run`` starts the work.

    Features of finished videos are stored in the index at once, so that they survive a kill, and the index has the
    finished videos once a minute and at the end.

    Args:
        sources: videos as for ``mesm extract``, and feature files. A video with the name of one in the feature files is
            not extracted; its features are taken from there.
        new: whether the index may be made. choices: its settings.
        weights: weights files by backbone; default: those that ``mesm weights`` downloaded.

    Raises:
        MesmError: a source has no videos, a backbone cannot be built or searched, or the index has other settings,
            backbones or weights.
    """

    def __init__(
        self,
        path: Path,
        sources: Sequence[str],
        *,
        new: bool,
        choices: Choices = NOTHING,
        weights: Mapping[str, Path] = {},
        options: Options = USUAL,
    ) -> None:
        self.path = path
        self.report = Report()
        before = None if new and not (path / FILE).is_file() else read_manifest(path)
        if before is None:
            _refuse_other_folder(path)
        else:
            choices.refuse_others(path, before)
        files, others = split_sources(sources)
        self._given = in_order([look_at(file) for file in files]) if files else []
        names = _backbone_names(before, choices, self._given)
        refuse_speechless(names)
        refuse_unused(weights, names)
        self._choices = choices
        self._take_sources(video_paths(others) if others else [], before)
        self._setup: Setup | None = None
        if self._todo:
            specs = {name: weights_of(name, weights) for name in names}
            self._setup = Setup(specs, settings=_settings(before, choices, self._given), options=options)
        self._new = self._new_manifest(before)
        self.videos = [VideoFile(name, file.path) for name, file in self._from_files.items()]
        self.videos += [VideoFile(str(number), found.path) for number, found in enumerate(self._todo)]

    @property
    def parts(self) -> Path | None:
        """The folder of the features that are finished, or None if there is none yet."""
        folder = self.path / FEATURES
        return folder if folder.is_dir() else None

    def run(self) -> Generator[Event]:
        """Add the videos, yielding events, and fill ``report``.

        Raises:
            OutputError: another process changes the index, or a file could not be written; DeviceError: no node of a
                cluster is left. Finished videos are kept.
        """
        try:
            with changing(self.path, self._new) as writer:
                refuse_other_networks(self.path, writer.manifest.networks, self._new.networks, what="this build")
                self._places = {_place(video): video.id for video in writer.videos.values()}
                self._committed = time.monotonic()
                for events in (self._add_given(writer), self._add_videos(writer)):
                    for event in events:
                        self._count(event)
                        if time.monotonic() - self._committed > COMMIT_SECONDS:
                            writer.commit()
                            self._committed = time.monotonic()
                        yield event
                writer.commit()
        except (OutputError, DeviceError) as error:
            if self.parts:
                error.hint = f"{error.hint or ''} Finished videos are kept; the same command continues.".strip()
            raise

    def _take_sources(self, paths: Sequence[Path], before: Manifest | None) -> None:
        """Find what must be read: videos and features that are not in the index as they are now."""
        self._from_files: dict[str, _Found] = {}
        self._todo: list[_Found] = []
        present = {} if before is None else {_place(video): video for video in before.videos.values()}
        named: dict[str, Path] = {}
        if self._given:
            named |= dict.fromkeys(self._given[0].names, self._given[0].path)
        for path in paths:
            found = _look(path)
            name = path.name if path.name in named else path.stem
            if name in named:
                named[name] = path
            elif found is not None and self._is_present(present.get((found.path, "")), found):
                self.report.already += 1
            else:
                self._todo.append(found or _Found(path.absolute(), 0, 0))
        for name, path in named.items():
            found = _look(path)
            assert found is not None
            place = (found.path, name if path == self._given[0].path else "")
            if self._is_present(present.get(place), found):
                self.report.already += 1
            else:
                self._from_files[name] = found

    @staticmethod
    def _is_present(video: IndexedVideo | None, found: _Found) -> bool:
        return video is not None and (video.size, video.mtime) == (found.size, found.mtime)

    def _new_manifest(self, before: Manifest | None) -> Manifest:
        """Return the manifest with which an index is made, after checking networks against those of an existing one."""
        given = [file.network for file in self._given]
        built = (
            []
            if self._setup is None
            else [Network(each.name, each.weights_hash, each.width) for each in self._setup.backbones]
        )
        if before is not None:
            for networks, what in ((given, "the feature files"), (built, "the weights")):
                if networks:
                    refuse_other_networks(self.path, before.networks, networks, what=what)
            return before
        if given and built:
            refuse_other_networks(self.path, built, given, what="the feature files")
        clip_len = self._given[0].clip_len if self._given else None
        return self._choices.manifest(built or given, clip_len=clip_len)

    def _add_given(self, writer: IndexWriter) -> Iterator[Event]:
        """Add videos with the features that were given."""
        clip_len = None if self._choices.clip_len is None else float(self._choices.clip_len)
        for name, found in self._from_files.items():
            video = VideoFile(name, found.path)
            try:
                given = read_given(self._given, name, clip_len=clip_len)
                content = given.source or given.content
                if found.path != self._given[0].path.absolute():
                    content = default_notes().content_hash(found.path, what="video")
                    if given.source not in (None, content):
                        raise FeatureError(f"{found.path} is not the video that its features were extracted from.")
            except MesmError as error:
                yield Failed(video, str(error))
                continue
            entry = self._entry(content[:ID_LETTERS], name, given.content, found, given.duration, given.clip_len)
            self._put(writer, replace(entry, kept=given.kept), given.rows)
            yield Done(video, given.content, {CLIP: len(given.rows)})

    def _add_videos(self, writer: IndexWriter) -> Iterator[Event]:
        """Extract the features of videos that have none in the index, and add the videos."""
        if self._setup is None:
            return
        folder = self.path / FEATURES
        videos = [VideoFile(str(number), found.path) for number, found in enumerate(self._todo)]
        for event in self._setup.extract(videos, folder, known={}, cached=True):
            yield self._finished(writer, event, self._setup) if isinstance(event, Done) else event

    def _finished(self, writer: IndexWriter, event: Done, setup: Setup) -> Event:
        """Add a video whose features are stored."""
        keys = {backbone.name: setup.settings.key(backbone, event.content) for backbone in setup.backbones}
        parts = Parts(self.path / FEATURES)
        rows, about = parts.read(keys[CLIP]) or (np.empty((0, 0)), {})
        duration = about.get("duration")
        if not isinstance(duration, float) or not duration > 0:
            for key in keys.values():
                parts.remove(key)
            return Failed(event.video, f"{event.video.path}: its stored features were damaged; run the command again")
        kept = tuple(Kept(network.name, keys[network.name]) for network in writer.manifest.networks)
        found = self._todo[int(event.video.name)]
        entry = self._entry(
            event.content[:ID_LETTERS],
            found.path.stem,
            event.content,
            found,
            duration,
            float(setup.settings.clip_len),
        )
        try:
            self._put(writer, replace(entry, kept=kept), rows)
        except FeatureError as error:
            return Failed(event.video, str(error))
        return event

    def _put(self, writer: IndexWriter, entry: IndexedVideo, rows: np.ndarray) -> None:
        """Add a video, or only its new path if its content is in the index."""
        same = writer.videos.get(entry.id)
        replaced = self._places.get(_place(entry))
        if same is not None and same.content == entry.content:
            self._put_again(writer, same, entry)
        else:
            manifest = writer.manifest
            checked = prepare_frames(
                [rows], dim=manifest.width, max_frames=len(rows), shorten="first", where=str(entry.path)
            )
            segments = pool_segments(
                checked,
                clip_len=entry.clip_len,
                duration=entry.duration,
                seconds=manifest.seconds,
                overlap=manifest.overlap,
            )
            writer.add(replace(entry, segments=len(segments)), segments)
            if same is None and replaced is None:
                self.report.added += 1
            else:
                self.report.replaced += 1
        if replaced is not None and replaced != entry.id:
            writer.remove({replaced})
        self._places[_place(entry)] = entry.id

    def _put_again(self, writer: IndexWriter, same: IndexedVideo, entry: IndexedVideo) -> None:
        """Count a video whose content is in the index; of several files with this content, keep the first path."""
        ours, theirs = _place(entry), _place(same)
        if ours != theirs and same.source_state() == "present":
            self.report.copies.append((_label(max(ours, theirs)), _label(min(ours, theirs))))
            if theirs < ours:
                return
        elif ours != theirs:
            self.report.moved += 1
            self._places.pop(theirs, None)
        else:
            self.report.already += 1
        writer.relocate(replace(entry, segments=same.segments, added=same.added))

    def _entry(
        self, id_: str, name: str, content: str, found: _Found, duration: float, clip_len: float
    ) -> IndexedVideo:
        """Return the entry of a video, without segments and features."""
        added = datetime.now(UTC).isoformat(timespec="seconds")
        return IndexedVideo(id_, found.path, name, content, found.size, found.mtime, duration, clip_len, 0, added, ())

    def _count(self, event: Event) -> None:
        if isinstance(event, Frames):
            self.report.frames += event.count
        elif isinstance(event, Failed):
            self.report.bad.append((event.video, event.reason))
        elif event.warning:
            self.report.warnings.append((event.video, event.warning))


def _backbone_names(before: Manifest | None, choices: Choices, given: Sequence[FeatureFile]) -> list[str]:
    """Return the backbones of an index: its own, else the chosen ones, else those of the feature files, else CLIP."""
    if before is not None:
        return [network.name for network in before.networks]
    names = list(choices.backbones or [file.network.name for file in given] or [CLIP])
    return sorted(set(names), key=lambda name: (name != CLIP, name))


def _refuse_other_folder(path: Path) -> None:
    """Raise OutputError if an index would be made in a folder with other files, or over a file."""
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; an index is a folder.", hint="Choose another name.")
    others = [file.name for file in path.iterdir() if not file.name.startswith(".")] if path.is_dir() else []
    if others:
        raise OutputError(
            f"{path} is a folder with other files: {listing(sorted(others), limit=3)}.",
            hint="Give the folder of the index first, then the sources: mesm index build INDEX SOURCE...",
        )


def _settings(before: Manifest | None, choices: Choices, given: Sequence[FeatureFile]) -> Settings:
    """Return the settings with which videos are extracted."""
    if before is None:
        return choices.settings(given[0].clip_len if given else None)
    return Settings(Fraction(before.clip_len), cast("Interpolation", before.interpolation), before.dtype)


def _place(video: IndexedVideo) -> tuple[Path, str]:
    """Return what identifies the source of a video: its path, and its name in a feature file."""
    return video.path, "" if video.is_video else video.name


def _label(place: tuple[Path, str]) -> str:
    path, name = place
    return f"'{name}' in {path}" if name else str(path)


def _look(path: Path) -> _Found | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Found(path.absolute(), status.st_size, status.st_mtime_ns)
