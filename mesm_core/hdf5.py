"""Reading of numeric datasets in HDF5 files. All damage is reported as FeatureError."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mesm_core.errors import FeatureError
from mesm_core.inputs import has_surrogates, open_hdf5, printable, reading, reason
from mesm_core.video.names import without_suffix

MOST_VALUES = 2**30
"""Maximum number of values of an array: those of a day at 25 frames per second and a width of 500."""
NUMBERS = "biuf"


def find(file: h5py.File, name: str) -> h5py.Dataset | h5py.Group | None:
    """Return the object with a name in a file, or None. The name may contain ``/``.

    Raises:
        FeatureError: the object exists but cannot be opened.
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
    """Return the object with a video's name, or with that name without the ending of a video file, or None.

    Raises:
        FeatureError: as for ``find``.
    """
    return find(file, _video_name(file, vid))


def has_video(file: h5py.File, vid: str) -> bool:
    """Return whether a file has an object for ``find_video``."""
    return has(file, _video_name(file, vid))


def _video_name(file: h5py.File, vid: str) -> str:
    return vid if has(file, vid) else without_suffix(vid)


def has(file: h5py.File, name: str) -> bool:
    """Return whether a file has an object with a name. Damaged objects count, so that reading reports them."""
    try:
        return bool(name) and name in file
    except ValueError:
        return False
    except Exception:  # damaged metadata, which reading reports
        return True


def check_size(shape: tuple[int, ...], *, where: str) -> None:
    """Raise FeatureError if an array with this shape is larger than the features of any video."""
    if math.prod(shape) > MOST_VALUES:
        raise FeatureError(
            f"{where} has the shape {shape}, {math.prod(shape):,} values: more than any video has.",
            hint="Extract the features again, or write the file again.",
        )


def check_numbers(node: h5py.Dataset, *, where: str) -> None:
    """Check the metadata of a dataset, without reading its values.

    Args:
        where: name of the dataset in messages.

    Raises:
        FeatureError: the dataset does not have real numbers, has more values than any video, was never written, refers
            to files that do not exist, or is damaged.
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
    """Return the values of a dataset in their stored type, after checking its metadata.

    Raises:
        FeatureError: as for ``check_numbers``.
    """
    check_numbers(node, where=where)
    with reading(where, FeatureError, hint="Is the file complete?"):
        return np.asarray(node[()])


def as_float32(array: np.ndarray) -> np.ndarray:
    """Return the array in float32; values out of range become infinite, which readers refuse."""
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the name and object of each dataset in a file. In groups, names are ``group/name``; links are followed.

    Raises:
        FeatureError: a link is broken or forms a cycle, or the file is damaged.
    """
    yield from _walk(file, file, "", ())


def _walk(
    file: h5py.File, group: h5py.Group, prefix: str, above: tuple[h5py.Group, ...]
) -> Iterator[tuple[str, h5py.Dataset]]:
    with reading(file.filename, FeatureError, hint="Is the file complete?"):
        # h5py returns bytes for names that are not UTF-8.
        names = [n if isinstance(n, str) else n.decode("utf-8", "surrogateescape") for n in group]
    for name in names:
        path = prefix + name
        if has_surrogates(path):
            raise FeatureError(f"'{printable(path)}' in {file.filename} is a name that is not UTF-8.")
        node = find(file, path)
        if node is None:
            raise FeatureError(f"'{path}' in {file.filename} is a broken link.")
        if isinstance(node, h5py.Dataset):
            yield path, node
        elif isinstance(node, h5py.Group):
            if node == group or node in above:
                raise FeatureError(f"'{path}' in {file.filename} is a link in a cycle of links.")
            yield from _walk(file, node, f"{path}/", (*above, group))


def _check_virtual(node: h5py.Dataset, where: str) -> None:
    """Refuse a virtual dataset with a missing source, for which HDF5 would silently return zeros."""
    folder = Path(node.file.filename).parent
    for source in node.virtual_sources():
        own = source.file_name == "."
        path = next((p for p in (folder / source.file_name, Path(source.file_name)) if p.is_file()), None)
        if not own and path is None:
            raise FeatureError(f"{where} refers to the file {source.file_name}, which does not exist.")
        if own or path is None:
            there = has(node.file, source.dset_name)
        else:
            with open_hdf5(path) as other:
                there = has(other, source.dset_name)
        if not there:
            raise FeatureError(f"{where} refers to the dataset '{source.dset_name}', which does not exist.")
