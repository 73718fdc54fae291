"""An index of videos, open for reading: a snapshot with queries by vector, and the kept features of its videos."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from mesm_core import hdf5
from mesm_core.arrays import normalise
from mesm_core.errors import DataError, FeatureError
from mesm_core.extraction.parts import Parts
from mesm_core.inputs import open_hdf5
from mesm_core.search.engines import Engine, SegmentHit, open_engine
from mesm_core.search.manifest import IndexedVideo, Kept, Manifest, read_manifest

FEATURES = "features"
"""Name of the folder of kept features in an index."""
TRIES = 5
RESTORE = (
    "Restore the index from a copy, or remove the video from it and add it again: mesm index remove, mesm index add."
)
CHANGED = "The index was changed after it was opened: open it again."


class Index:
    """An index as it was when it was opened; later changes do not show.

    Args:
        path: the folder; manifest: its manifest; engine: opened with the state in the manifest.
    """

    def __init__(self, path: Path, manifest: Manifest, engine: Engine) -> None:
        self.path = path
        self.manifest = manifest
        self.engine = engine

    @classmethod
    def open(cls, path: Path | str) -> Index:
        """Return the present state of an index.

        Raises:
            DataError: there is no index, or it is damaged or of another version; OutputError: its engine cannot be
                reached; ConfigError: its engine is unknown or needs a package that is not installed.
        """
        folder = Path(path)
        for left in reversed(range(TRIES)):
            manifest = read_manifest(folder)
            try:
                return cls(folder, manifest, open_engine(manifest, folder))
            except DataError:
                # A writer may have replaced the files of this state after the manifest was read.
                if not left or read_manifest(folder).generation == manifest.generation:
                    raise
        raise AssertionError

    @property
    def backbone(self) -> str:
        """Name of the backbone of the vectors."""
        return self.manifest.networks[0].name

    @property
    def weights(self) -> str | None:
        """Hash of the backbone's weights, or None if the feature files of the index do not record it."""
        return self.manifest.networks[0].weights

    @property
    def videos(self) -> Mapping[str, IndexedVideo]:
        """The videos by id."""
        return self.manifest.videos

    def files(self) -> list[Path]:
        """Return the files that belong to the index or that it refers to: its own, videos and feature files."""
        own = [path for path in self.path.rglob("*") if path.is_file()]
        kept = {Path(each.file) for video in self.videos.values() for each in video.kept if each.dataset is not None}
        return [*own, *(video.path for video in self.videos.values()), *kept]

    @property
    def is_current(self) -> bool:
        """Whether the index on the disk is still in this state."""
        return read_manifest(self.path).generation == self.manifest.generation

    def check_weights(self, found: str, *, where: Path | str) -> None:
        """Raise FeatureError if the backbone's weights are not those of the index.

        Args:
            found: hash of the weights in ``where``.
        """
        if self.weights is not None and found != self.weights:
            raise FeatureError(
                f"The index {self.path} was built with {self.backbone}, weights {self.weights[:12]}, but the weights "
                f"in {where} are {found[:12]}.",
                hint="Give the weights of the index, or build another index.",
            )

    def query(self, vector: np.ndarray, top: int = 100, videos: Collection[str] | None = None) -> list[SegmentHit]:
        """Return the ``top`` segments that are most similar to a vector, best first.

        Args:
            vector: (D,) in the space of the index, of any length; videos: ids of the videos to search; None for all.

        Raises:
            FeatureError: the vector has another width, NaN or infinity, or is zero; OutputError: the engine cannot be
                reached.
        """
        wanted = self._unit(vector)
        chosen = None if videos is None else set(videos) & self.videos.keys()
        if top < 1 or not self.videos or (chosen is not None and not chosen):
            return []
        asked = top
        while True:
            hits = self.engine.query(wanted, asked, chosen)
            # A killed writer may have left segments in the engine of videos that are not in the manifest.
            known = [hit for hit in hits if hit.video in self.videos]
            if len(known) >= top or len(hits) < asked:
                return known[:top]
            asked *= 2

    def features(self, video_id: str, backbone: str | None = None) -> tuple[np.ndarray, float]:
        """Return the kept features (T, D) float32 of a video, not normalised, and the seconds per row.

        Args:
            backbone: default: the backbone of the vectors.

        Raises:
            DataError: the video is not in the index, or was removed from it meanwhile; FeatureError: the index has no
                features by this backbone, or they are damaged.
        """
        video = self.videos.get(video_id)
        if video is None:
            raise DataError(f"No video of {self.path} has the id '{video_id}'.")
        name = backbone or self.backbone
        kept = next((each for each in video.kept if each.backbone == name), None)
        if kept is None:
            raise FeatureError(
                f"{self.path} has no features of {video.name} by {name}.",
                hint=f"Build it with --backbone {self.backbone} --backbone {name}.",
            )
        try:
            rows = read_kept(self.path, kept)
        except FeatureError as error:
            if kept.dataset is not None:
                raise
            raise FeatureError(
                f"The features of {video.name} by {name} in {self.path} are missing or damaged.",
                hint=RESTORE if self.is_current else CHANGED,
            ) from error
        width = next(network.width for network in self.manifest.networks if network.name == name)
        if not len(rows) or rows.shape[1] != width or not np.isfinite(rows).all():
            raise FeatureError(f"The features of {video.name} by {name} in {self.path} are damaged.", hint=RESTORE)
        return rows, video.clip_len

    def close(self) -> None:
        """Release the files and connections of the engine."""
        self.engine.close()

    def _unit(self, vector: np.ndarray) -> np.ndarray:
        found = np.asarray(vector, np.float32)
        if found.shape != (self.manifest.width,):
            raise FeatureError(
                f"The vector of the query has the shape {found.shape}, but the vectors of {self.path} are "
                f"{self.manifest.width} wide.",
                hint=f"Use the text encoder of {self.backbone}.",
            )
        if not np.isfinite(found).all() or not found.any():
            raise FeatureError("The vector of the query is zero, or has NaN or infinity.")
        unit: np.ndarray = normalise(found, eps=float(np.finfo(np.float32).tiny))
        return unit


def read_kept(folder: Path, kept: Kept) -> np.ndarray:
    """Return kept features (T, D) float32 of the index in ``folder``.

    Raises:
        FeatureError: they are missing or damaged.
    """
    if kept.dataset is None:
        found = Parts(folder / FEATURES).read(kept.file)
        if found is None:
            raise FeatureError(f"Features in {folder / FEATURES} ({kept.file}) are missing or damaged.", hint=RESTORE)
        return hdf5.as_float32(found[0])
    with open_hdf5(Path(kept.file)) as file:
        node = hdf5.find(file, kept.dataset)
        if not hasattr(node, "ndim") or node is None or node.ndim != 2:
            raise FeatureError(f"{kept.file} has no features of '{kept.dataset}'.", hint="Restore the file.")
        return hdf5.as_float32(hdf5.read_numbers(node, where=f"'{kept.dataset}' in {kept.file}"))
