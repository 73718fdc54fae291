"""Opens the collection that a server answers about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from mesm_core.backbones.protocol import Precision
from mesm_core.errors import DataError, count
from mesm_core.files import make_folder
from mesm_core.inference.locate import Locator, Plan, plan_location
from mesm_core.places import refuse_existing
from mesm_core.search.index import Index
from mesm_core.search.loading import SearchPlan, plan_search, searcher_of
from mesm_core.search.manifest import FILE
from mesm_core.video.names import VIDEO_SUFFIXES
from mesm_core.web.collection import Collection
from mesm_core.web.indexed import IndexCollection
from mesm_core.web.videos import VideoCollection


@dataclass(frozen=True)
class CollectionPlan:
    """A collection and the files that it needs, known before anything large is read.

    ``sources``: videos; ``plan``: of the model; ``uploads``: the folder of uploads, or None; ``search``: of the index
    that is served instead of sources, or None.
    """

    sources: tuple[str, ...]
    plan: Plan
    uploads: Path | None
    search: SearchPlan | None = None

    def open(self, *, device: str = "auto", precision: Precision | None = None) -> Collection:
        """Return the collection; the folder of uploads is created.

        Args:
            device, precision: as for ``Locator.load``.

        Raises:
            DataError: a source has no video; OutputError: the folder of uploads cannot be written; also the errors of
                ``Locator.load``.
        """
        if self.search is not None:
            notes = [*self.search.warnings, *_hidden_note(self.search.index)]
            return IndexCollection(searcher_of(self.search, device=device), notes)
        kept: list[str] = []
        if self.uploads is not None:
            make_folder(self.uploads)
            refuse_existing(self.uploads / "upload.mp4", overwrite=True)
            kept = [str(self.uploads)] if _has_videos(self.uploads) else []
        locator = Locator.from_plan(self.plan, device=device, precision=precision)
        return VideoCollection([*self.sources, *kept], locator, device=device, precision=precision)


def plan_collection(
    sources: Sequence[str],
    model: Path | None = None,
    *,
    weights: Mapping[str, Path] | None = None,
    clip: Path | None = None,
    clip_len: Fraction | None = None,
    root: Path | None = None,
    uploads: Path | None = None,
) -> CollectionPlan:
    """Return the plan of a collection; nothing is written.

    Args:
        sources: files, folders, patterns and ``.txt`` lists; may be empty with ``uploads``. Or the folder of one index.
        model, weights, clip, clip_len, root: as for ``Locator.load``.
        uploads: folder of uploaded videos, which are part of the collection.

    Raises:
        DataError: there is neither a source nor a folder of uploads, or an index has no videos, only features; also the
            errors of ``Locator.load``.
    """
    if not sources and uploads is None:
        raise DataError("There are no videos to serve.", hint="Give files or folders, or a folder with --uploads.")
    indexes = [source for source in sources if (Path(source) / FILE).is_file()]
    if indexes:
        if len(sources) > 1 or uploads is not None or clip_len is not None:
            raise DataError(
                f"{indexes[0]} is an index, which is served alone, and without --uploads and --clip-len.",
                hint="Add videos to the index with `mesm index add`.",
            )
        search = plan_search(indexes[0], model, weights=weights, clip=clip, root=root)
        entries = search.index.videos.values()
        if entries and not any(entry.is_video for entry in entries):
            raise DataError(
                f"{indexes[0]} has features without their videos, so that nothing can be shown.",
                hint="Build an index of the videos: `mesm index build INDEX FEATURES.hdf5 VIDEOS…` uses the features.",
            )
        return CollectionPlan((), search.plan, None, search)
    plan = plan_location(model, weights=weights, clip=clip, clip_len=clip_len, root=root)
    return CollectionPlan(tuple(sources), plan, uploads)


def _hidden_note(index: Index) -> list[str]:
    """Return a note for the user if entries of an index are not shown."""
    hidden = sum(not entry.is_video for entry in index.videos.values())
    which, whose = ("is", "its") if hidden == 1 else ("are", "their")
    shown = f"{count(hidden, 'video')} of the index {which} not shown, since the index has only {whose} features."
    return [shown] if hidden else []


def _has_videos(folder: Path) -> bool:
    return any(path.suffix.lower() in VIDEO_SUFFIXES for path in folder.rglob("*"))
