"""The feature files of an extraction: their present content, and the merge of new features."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from mesm_core import hdf5
from mesm_core.backbones.protocol import Backbone
from mesm_core.config.backbones import BACKBONES
from mesm_core.data.attributes import describe
from mesm_core.data.convert import COMPLETE
from mesm_core.data.merging import SHARD, copy_video
from mesm_core.data.origin import MADE_WITH, described, read_origin
from mesm_core.errors import FeatureError, count, listing
from mesm_core.extraction.parts import Parts
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.shards import Shard, shard_text
from mesm_core.files import library_output, together
from mesm_core.inputs import open_hdf5, printable
from mesm_core.places import need_room

HASH = "source_hash"


def output_path(folder: Path, backbone: str, shard: Shard | None = None) -> Path:
    """Return the feature file of a backbone: the name that presets expect, with the shard's number in it.

    >>> output_path(Path("out"), "clip-b32", (2, 8)).as_posix()
    'out/clip_image.2-of-8.hdf5'
    """
    name = Path(BACKBONES[backbone].file)
    return folder / (name.name if shard is None else f"{name.stem}.{shard_text(shard)}{name.suffix}")


@dataclass(frozen=True, slots=True)
class Present:
    """A video whose features are in the file; ``content``: hash of the video file they were extracted from."""

    same_settings: bool
    content: str


class Output:
    """A backbone's feature file and its features from earlier extractions.

    Args:
        path: the file, which need not exist; adds: whether features already in the file are kept.

    Raises:
        FeatureError: the file is damaged or not HDF5.
    """

    def __init__(self, path: Path, backbone: Backbone, settings: Settings, *, adds: bool) -> None:
        self.path = path
        self.backbone = backbone
        self._made = settings.described(backbone)
        self._settings = settings
        self.present: dict[str, Present] = {}
        if adds and path.exists():
            with open_hdf5(path) as file:
                self.present = {name: self._look(node) for name, node in hdf5.datasets(file)}

    def known(self) -> dict[str, str]:
        """Return the content hash of each video whose features were made with the same settings."""
        return {name: video.content for name, video in self.present.items() if video.same_settings}

    def refuse_mixing(self, names: set[str]) -> None:
        """Raise FeatureError if videos other than ``names``, which stay in the file, have other settings."""
        others = [name for name, video in self.present.items() if not video.same_settings and name not in names]
        if others:
            raise FeatureError(
                f"{self.path} holds {count(len(others), 'video')} that are not among the sources and were not made "
                f"with these settings ({described(self._made)}): {listing(others, limit=5)}.",
                hint="Choose another OUTDIR, or replace the file: --overwrite.",
            )

    def kept(self, done: Mapping[str, str], failed: Mapping[str, str | None]) -> list[str]:
        """Return the names of the videos that stay in the file as they are.

        Features of a video file whose content has changed are removed, even if no new features replace them.

        Args:
            done, failed: content hash of each video of this extraction; None if it could not be read.
        """
        return [name for name, video in self.present.items() if self._stays(name, video, done, failed)]

    def write(
        self, kept: Sequence[str], new: Mapping[str, str], parts: Parts, *, shard: Shard | None
    ) -> Iterator[tuple[str, str | None]]:
        """Write the file; yield each video's name, and the reason if its part is damaged, else None.

        Args:
            kept: videos that are copied; new: content hash of each video whose features are read from the parts.

        Raises:
            OutputError: the file could not be written.
        """
        with ExitStack() as stack:
            old = stack.enter_context(open_hdf5(self.path)) if kept else None
            target = stack.enter_context(library_output(self.path))
            file = stack.enter_context(h5py.File(target, "w"))
            if shard is not None:
                file.attrs[SHARD] = shard_text(shard)
            for name in sorted({*kept, *new}):
                if name in new:
                    found = parts.read(self._settings.key(self.backbone, new[name]))
                    if found is None:
                        yield name, "its finished features were damaged or removed; extract it again with --resume"
                        continue
                    node = file.create_dataset(name, data=found[0])
                    describe(node.id, self._attributes(found[1], len(found[0])))
                else:
                    assert old is not None
                    where = f"'{name}' in {self.path}"
                    copy_video(file, name, hdf5.read_numbers(old[name], where=where), old[name], where=where)
                yield name, None

    def bytes(self, new: Mapping[str, str], parts: Parts) -> int:
        """Return the approximate size of the file in bytes."""
        before = self.path.stat().st_size if self.present else 0
        return before + sum(parts.size(self._settings.key(self.backbone, content)) for content in new.values())

    @staticmethod
    def _stays(name: str, video: Present, done: Mapping[str, str], failed: Mapping[str, str | None]) -> bool:
        if name in done:
            return video.same_settings and done[name] == video.content
        return name not in failed or (video.same_settings and failed[name] in (None, video.content))

    def _look(self, node: h5py.Dataset) -> Present:
        origin = read_origin(node, (*MADE_WITH, HASH))
        content = str(origin.pop(HASH, ""))
        return Present(origin == self._made, content)

    def _attributes(self, about: Mapping[str, Any], rows: int) -> dict[str, str | int | float]:
        return {
            COMPLETE: rows,
            "fps": 1 / self._made["clip_len"],
            "duration": float(about["duration"]),
            **self._made,
            "source": printable(about["source"]),
            HASH: about["source_hash"],
            "decoded_frames": int(about["frames"]),
            "skipped_packets": int(about["skipped_packets"]),
        }


def join(
    outputs: Sequence[Output],
    done: Mapping[str, str],
    failed: Mapping[str, str | None],
    parts: Parts,
    *,
    shard: Shard | None,
    stop: threading.Event,
) -> dict[str, str]:
    """Write all feature files or none; return the videos that are missing from any file, with the reason.

    A file without new features is not changed.

    Args:
        done, failed: as for ``Output.kept``; shard: if given, a file without videos is written too.
        stop: if set, writing ends after the current video, and no file is changed.

    Raises:
        OutputError: a file could not be written; no file is changed.
    """
    missing: dict[str, str] = {}
    with together():
        for output in outputs:
            kept = output.kept(done, failed)
            new = {name: content for name, content in done.items() if name not in set(kept)}
            unchanged = not new and len(kept) == len(output.present) and output.path.exists()
            if unchanged or not (kept or new or shard):
                continue
            need_room(output.path, output.bytes(new, parts))
            for name, wrong in output.write(kept, new, parts, shard=shard):
                if stop.is_set():
                    raise CancelledError
                if wrong is not None:
                    missing[name] = wrong
    return missing
