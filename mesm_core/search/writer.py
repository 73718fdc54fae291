"""Changes to an index: by one process at a time, and atomic for readers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mesm_core.errors import OutputError
from mesm_core.extraction.parts import Parts
from mesm_core.files import make_folder
from mesm_core.places import could_not_write, explained
from mesm_core.search.engines import Engine, open_engine
from mesm_core.search.index import FEATURES
from mesm_core.search.manifest import FILE, IndexedVideo, Manifest, read_manifest, write_manifest
from mesm_core.search.segments import Segments

LOCK = ".lock"


class IndexWriter:
    """The videos of an index with changes that take effect together, at ``commit``.

    A commit first makes new segments durable, then replaces the manifest, and last removes what is not needed any more.
    A process that is killed in between leaves the old or the new state, and the next writer removes the rest.

    Args:
        path: the folder, locked by this process.
    """

    def __init__(self, path: Path, manifest: Manifest, engine: Engine) -> None:
        self.path = path
        self.manifest = manifest
        self.engine = engine
        self.videos = dict(manifest.videos)
        self._changed = False

    def add(self, video: IndexedVideo, segments: Segments) -> None:
        """Add a video; one with the same id is replaced."""
        self.remove({video.id})
        self.engine.add(video.id, segments)
        self.videos[video.id] = video
        self._changed = True

    def relocate(self, video: IndexedVideo) -> None:
        """Replace the metadata of a video with the same id and the same segments."""
        self.videos[video.id] = video
        self._changed = True

    def remove(self, ids: Collection[str]) -> None:
        """Remove videos."""
        present = set(ids) & self.videos.keys()
        if present:
            self.engine.remove(present)
            for id_ in present:
                del self.videos[id_]
            self._changed = True

    def commit(self) -> None:
        """Make the changes so far the state of the index, if there are any.

        Raises:
            OutputError: they could not be written; the index is unchanged.
        """
        if not self._changed:
            return
        ordered = sorted(self.videos.values(), key=lambda video: (video.name, video.id))
        state = self.engine.save()
        before = self.manifest
        self.manifest = before.changed(videos={video.id: video for video in ordered}, state=state)
        write_manifest(self.path, self.manifest)
        self._changed = False
        self.engine.clean(_counts(self.manifest))
        self._remove_features(_keys(before) - _keys(self.manifest))

    def _remove_features(self, keys: Collection[str]) -> None:
        parts = Parts(self.path / FEATURES)
        with explained(self.path / FEATURES):
            for key in keys:
                parts.remove(key)


@contextmanager
def changing(path: Path, new: Manifest | None = None) -> Iterator[IndexWriter]:
    """Lock an index and yield its writer; changes after the last ``commit`` are lost.

    Args:
        new: manifest of an index without videos, which is created if the folder has none.

    Raises:
        OutputError: another process changes the index, or the folder cannot be written; DataError: there is no index
            and ``new`` is None, or it is damaged.
    """
    if new is None:
        read_manifest(path)  # before a lock is made in a folder that is not an index
    with _locked(path):
        begins = new is not None and not (path / FILE).is_file()
        manifest = new if new is not None and begins else read_manifest(path)
        engine = open_engine(manifest, path)
        try:
            if begins:
                write_manifest(path, manifest)
            engine.clean(_counts(manifest))
            yield IndexWriter(path, manifest, engine)
        finally:
            engine.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    make_folder(path)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(f"Another process is changing the index {path}.", hint="Wait for it to end.") from None
    except OSError as error:
        raise could_not_write(path / LOCK, error) from error
    try:
        yield
    finally:
        lock.release()


def _counts(manifest: Manifest) -> dict[str, int]:
    """Return the number of segments of each video."""
    return {id_: video.segments for id_, video in manifest.videos.items()}


def _keys(manifest: Manifest) -> set[str]:
    """Return the keys of the features that are kept in the index."""
    return {kept.file for video in manifest.videos.values() for kept in video.kept if kept.dataset is None}
