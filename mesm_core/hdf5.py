"""Datasets of numbers inside HDF5 files, found and read so that no damage goes unnoticed or escapes as h5py's error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mesm_core.errors import FeatureError
from mesm_core.inputs import has_surrogates, open_hdf5, printable, reading, reason
from mesm_core.video.names import without_ending

MOST_VALUES = 2**30
"""Values of one array, far above any video's: a day at 25 frames a second, 500 wide."""
NUMBERS = "biuf"


def find(file: h5py.File, name: str) -> h5py.Dataset | h5py.Group | None:
    """Return what a file has under a name, also one with ``/`` in it, or None.

    Raises:
        FeatureError: the name is there, but what it stands for cannot be opened.
    """
    try:
        return file[name] if name and name in file else None
    except ValueError:  # a name that HDF5 cannot hold: a NUL, or half a surrogate pair
        return None
    except Exception as error:  # damaged metadata, a loop of links, a missing external file
        raise FeatureError(
            f"'{name}' in {file.filename} cannot be opened: {reason(error)}.", hint="Is the file complete?"
        ) from error


def find_video(file: h5py.File, vid: str) -> h5py.Dataset | h5py.Group | None:
    """Return what a file has under a video's name, or under it without the ending of a video file, or None.

    Raises:
        FeatureError: as for ``find``.
    """
    return find(file, _video_name(file, vid))


def has_video(file: h5py.File, vid: str) -> bool:
    """Return whether a file has anything that ``find_video`` would open."""
    return has(file, _video_name(file, vid))


def _video_name(file: h5py.File, vid: str) -> str:
    return vid if has(file, vid) else without_ending(vid)


def has(file: h5py.File, name: str) -> bool:
    """Return whether a file has anything under a name; what is damaged counts, so that reading it says so."""
    try:
        return bool(name) and name in file
    except ValueError:
        return False
    except Exception:  # damaged metadata: reading names it
        return True


def check_size(shape: tuple[int, ...], *, where: str) -> None:
    """Raise FeatureError where an array of this shape is larger than any video's features."""
    if math.prod(shape) > MOST_VALUES:
        raise FeatureError(
            f"{where} claims the shape {shape}, {math.prod(shape):,} values: more than any video has.",
            hint="Extract the features again, or write the file anew.",
        )


def check_numbers(node: h5py.Dataset, *, where: str) -> None:
    """Refuse a dataset by what it claims to be; its numbers are not read.

    Args:
        where: names the dataset in messages.

    Raises:
        FeatureError: it holds no real numbers, claims more values than any video has, was never written, takes its
            values from files that are not there, or is damaged.
    """
    with reading(where, FeatureError, hint="Is the file complete?"):
        shape, kind = node.shape, node.dtype.kind
        if shape is None or kind not in NUMBERS:
            raise FeatureError(f"{where} holds {'nothing' if shape is None else node.dtype}, not real numbers.")
        check_size(shape, where=where)
        if node.is_virtual:
            _check_virtual(node, where)
        elif node.size and not node.external and node.id.get_storage_size() == 0:
            raise FeatureError(f"{where} has the shape {shape}, but its numbers were never written.")


def read_numbers(node: h5py.Dataset, *, where: str) -> np.ndarray:
    """Return a dataset's numbers as they are stored, after a look at what it claims to be.

    Raises:
        FeatureError: as for ``check_numbers``.
    """
    check_numbers(node, where=where)
    with reading(where, FeatureError, hint="Is the file complete?"):
        return np.asarray(node[()])


def as_float32(array: np.ndarray) -> np.ndarray:
    """Return the array in float32; values that do not fit become infinite, which readers refuse."""
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the name and dataset of each dataset in a file, those in groups as ``group/name``; links are followed.

    Raises:
        FeatureError: a link leads nowhere or into a circle, or the file is damaged.
    """
    yield from _walk(file, file, "", ())


def _walk(
    file: h5py.File, group: h5py.Group, prefix: str, above: tuple[h5py.Group, ...]
) -> Iterator[tuple[str, h5py.Dataset]]:
    with reading(file.filename, FeatureError, hint="Is the file complete?"):
        # h5py gives bytes for a name that is not UTF-8.
        names = [n if isinstance(n, str) else n.decode("utf-8", "surrogateescape") for n in group]
    for name in names:
        path = prefix + name
        if has_surrogates(path):
            raise FeatureError(f"'{printable(path)}' in {file.filename} is a name that is not UTF-8.")
        node = find(file, path)
        if node is None:
            raise FeatureError(f"'{path}' in {file.filename} is a link that leads nowhere.")
        if isinstance(node, h5py.Dataset):
            yield path, node
        elif isinstance(node, h5py.Group):
            if node == group or node in above:
                raise FeatureError(f"'{path}' in {file.filename} is a link that leads in a circle.")
            yield from _walk(file, node, f"{path}/", (*above, group))


def _check_virtual(node: h5py.Dataset, where: str) -> None:
    """Refuse a virtual dataset with a source that is not there: HDF5 would fill in zeros without a word."""
    folder = Path(node.file.filename).parent
    for source in node.virtual_sources():
        own = source.file_name == "."
        path = next((p for p in (folder / source.file_name, Path(source.file_name)) if p.is_file()), None)
        if not own and path is None:
            raise FeatureError(f"{where} takes its numbers from {source.file_name}, which is not there.")
        if own or path is None:
            there = has(node.file, source.dset_name)
        else:
            with open_hdf5(path) as other:
                there = has(other, source.dset_name)
        if not there:
            raise FeatureError(f"{where} takes its numbers from '{source.dset_name}', which is not there.")
