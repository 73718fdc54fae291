"""Merges feature files: the shards of an extraction, or new videos with earlier ones."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mesm_core import hdf5
from mesm_core.data.origin import MADE_WITH, described, read_origin
from mesm_core.errors import FeatureError, count, listing
from mesm_core.files import library_output
from mesm_core.inputs import open_hdf5, reading
from mesm_core.places import need_room, refuse_existing, refuse_inputs

SHARD = "shard"
"""Attribute of a feature file: the shard of its videos, as I-of-N."""


@dataclass
class Merged:
    """Result of a merge: numbers of videos, repeated videos, rows and bytes, and the missing shards."""

    out: Path
    videos: int = 0
    repeated: int = 0
    rows: int = 0
    bytes: int = 0
    missing_shards: list[str] = field(default_factory=list)


def find_shards(sources: Sequence[str]) -> list[Path]:
    """Return the distinct feature files that paths and glob patterns match.

    Raises:
        FeatureError: a file is missing, or a pattern matches none.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        matches = [path] if path.is_file() else sorted(map(Path, glob.glob(source, recursive=True)))  # noqa: PTH207
        files = [match for match in matches if match.is_file()]
        if not files:
            raise FeatureError(f"No feature file at {source}.", hint="Give files or quoted patterns.")
        found += files
    return list(dict.fromkeys(found))


@dataclass
class _Shard:
    """An open file and its videos."""

    path: Path
    file: h5py.File
    videos: dict[str, h5py.Dataset]

    def where(self, name: str) -> str:
        return f"'{name}' in {self.path}"


def merge(
    paths: Sequence[Path], out: Path, *, overwrite: bool = False, progress: Callable[[int], None] | None = None
) -> Merged:
    """Write the videos of several feature files to one file; holds one video in memory at a time.

    Nothing is written if an error is raised.

    Args:
        progress: called with the number of bytes of each video written.

    Raises:
        FeatureError: the files were extracted with different settings, have different widths, or have different
            content for the same video; OutputError: ``out`` exists, is an input, or cannot be written.
    """
    refuse_inputs([out], paths)
    refuse_existing(out, overwrite=overwrite)
    report = Merged(out)
    with ExitStack() as stack:
        shards = [_open(path, stack) for path in paths]
        _check_settings(shards)
        chosen = _chosen(shards, report)
        if not chosen:
            raise FeatureError(f"There are no features in {listing(paths)}.")
        report.missing_shards = _missing([str(shard.file.attrs.get(SHARD, "")) for shard in shards])
        need_room(out, sum(int(shard.videos[name].nbytes) for name, shard in chosen.items()))
        with library_output(out, overwrite=overwrite) as target, h5py.File(target, "w") as file:
            for name in sorted(chosen):
                node, where = chosen[name].videos[name], chosen[name].where(name)
                array = hdf5.read_numbers(node, where=where)
                copy_video(file, name, array, node, where=where)
                report.videos += 1
                report.rows += len(array)
                report.bytes += array.nbytes
                if progress is not None:
                    progress(array.nbytes)
    return report


def copy_video(file: h5py.File, name: str, array: np.ndarray, node: h5py.Dataset, *, where: str) -> None:
    """Write a video's features (rows, width) to a file, with the compression and attributes of the dataset ``node``.

    Args:
        where: names the dataset in messages.

    Raises:
        FeatureError: the attributes are damaged.
    """
    with reading(where, FeatureError):
        layout: dict[str, Any] = {}
        if node.compression is not None:
            layout = {"compression": node.compression, "chunks": array.shape}
        attributes = dict(node.attrs)
    target = file.create_dataset(name, data=array, **layout)
    for key, value in attributes.items():
        try:
            target.attrs[key] = value
        except UnicodeEncodeError as error:
            raise FeatureError(f"{where}: the attribute {key!r} is not UTF-8 text.") from error


def _open(path: Path, stack: ExitStack) -> _Shard:
    file = stack.enter_context(open_hdf5(path))
    return _Shard(path, file, dict(hdf5.datasets(file)))


def _check_settings(shards: Sequence[_Shard]) -> None:
    """Raise FeatureError if videos were extracted with different settings or differ in width."""
    first: tuple[str, dict[str, Any]] | None = None
    for where, made in _made(shards):
        if first is None:
            first = where, made
        elif made != first[1]:
            differing = [name for name in made | first[1] if made.get(name) != first[1].get(name)]
            texts = [described({name: it[name] for name in differing if name in it}) for it in (first[1], made)]
            raise FeatureError(
                f"The files were extracted with different settings: {first[0]} has {texts[0]}, {where} has {texts[1]}.",
                hint="All features in a file need the same settings: extract the others again.",
            )


def _made(shards: Sequence[_Shard]) -> Iterator[tuple[str, dict[str, Any]]]:
    for shard in shards:
        for name, node in shard.videos.items():
            if node.ndim != 2:
                raise FeatureError(f"{shard.where(name)} has the shape {node.shape}; features are (frames, dim).")
            yield shard.where(name), {**read_origin(node, MADE_WITH), "width": node.shape[1]}


def _chosen(shards: Sequence[_Shard], report: Merged) -> dict[str, _Shard]:
    """Return for each video the file it is taken from.

    Raises:
        FeatureError: two files have different features of a video.
    """
    chosen: dict[str, _Shard] = {}
    differing = []
    for shard in shards:
        for name in shard.videos:
            other = chosen.setdefault(name, shard)
            if other is shard:
                continue
            report.repeated += 1
            one, two = (hdf5.read_numbers(s.videos[name], where=s.where(name)) for s in (other, shard))
            if not np.array_equal(one, two):
                differing.append(f"{name} ({other.path} and {shard.path})")
    if differing:
        raise FeatureError(
            f"{count(len(differing), 'video')} with different features in two files: {listing(differing)}.",
            hint="Leave out one of the files; its videos may have had other names or other content.",
        )
    return chosen


def _missing(shards: Sequence[str]) -> list[str]:
    """Return the missing shards, given the shard attributes of the files.

    >>> _missing(["1-of-3", "3-of-3"])
    ['2-of-3']
    """
    present: dict[int, set[int]] = {}
    for text in shards:
        number, _, total = text.partition("-of-")
        if number.isdecimal() and total.isdecimal() and int(total) <= 100_000:
            present.setdefault(int(total), set()).add(int(number))
    return [
        f"{number}-of-{total}"
        for total, numbers in present.items()
        for number in range(1, total + 1)
        if number not in numbers
    ]
