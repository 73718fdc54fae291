"""Folders of .npy and .npz -> one HDF5 file, one dataset a video."""

from __future__ import annotations

import glob
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import h5py
import numpy as np

from mesm_core.data.files import refuse_existing, replacing
from mesm_core.errors import FeatureError, listing

SUFFIXES = (".npy", ".npz")
DEFAULT_KEY = "features"
READERS = 4
KEPT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


@dataclass
class Conversion:
    """What a conversion wrote, and the files it had to leave out with the reason for each."""

    out: Path
    videos: int = 0
    frames: int = 0
    bytes: int = 0
    dims: set[int] = field(default_factory=set)
    bad: list[tuple[Path, str]] = field(default_factory=list)


Progress = Callable[[Path, int], None]


def find_sources(patterns: Sequence[str | Path]) -> list[Path]:
    """Return the .npy and .npz files of folders, globs and single files, each once and in order.

    Raises:
        FeatureError: a pattern finds nothing, or two files would give the same name.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES)
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(Path(p) for p in glob.glob(str(pattern), recursive=True))  # noqa: PTH207 (absolute patterns)
        if not matches:
            kind = "The folder" if path.is_dir() else "The path or pattern"
            raise FeatureError(f"{kind} {pattern} has no .npy or .npz files.", hint="Check the path; quote patterns.")
        wrong = [p for p in matches if p.suffix not in SUFFIXES]
        if wrong:
            raise FeatureError(f"Not .npy or .npz files: {listing(wrong)}.")
        found |= dict.fromkeys(matches)
    _refuse_duplicates(list(found))
    return list(found)


def npy_to_hdf5(
    sources: Sequence[Path],
    out: Path,
    *,
    key: str | None = None,
    dtype: str | None = None,
    fps: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write each file's array as the dataset named by its stem; files are read in parallel, written by one.

    Bad files are left out and reported; if all are bad, nothing is written.

    Args:
        sources: .npy or .npz files, each (frames, dim) after squeezing.
        key: array of an .npz to take; default: ``features``, or the only one.
        dtype: ``float16`` or ``float32`` to convert to; default: as stored, float32 for any other.
        fps: frames a second, kept as an attribute, with the duration that follows from it.
        progress: called with each file and the bytes it gave.

    Raises:
        FeatureError: no file is usable; OutputError: ``out`` exists and ``overwrite`` is off.
    """
    refuse_existing(out, overwrite=overwrite)
    report = Conversion(out)
    with replacing(out, overwrite=overwrite) as temporary:
        with h5py.File(temporary, "w", libver="latest") as file:
            for path, array in _read_all(sources, key=key, dtype=dtype, bad=report.bad):
                if array is not None:
                    _write(file, path, array, fps=fps)
                    report.videos += 1
                    report.frames += len(array)
                    report.bytes += array.nbytes
                    report.dims.add(array.shape[1])
                if progress is not None:
                    progress(path, 0 if array is None else array.nbytes)
        if not report.videos:
            reasons = "\n".join(f"  {path}: {reason}" for path, reason in report.bad[:10])
            raise FeatureError(f"None of the {len(sources)} files could be used:\n{reasons}")
    return report


def read_array(path: Path, *, key: str | None = None, dtype: str | None = None) -> np.ndarray:
    """Return a file's features (frames, dim), float16 or float32.

    Raises:
        FeatureError: the file is unreadable, holds Python objects, has another shape, NaN or infinity.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else _choose(loaded, key)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise FeatureError("it holds Python objects, which are never loaded") from error
        raise FeatureError(f"it cannot be read ({error})") from error
    shape = array.shape
    if array.ndim > 2:
        array = array.reshape([size for size in shape if size != 1] or [1])
    if array.ndim != 2:
        raise FeatureError(f"its shape {shape} does not squeeze to (frames, dim)")
    if 0 in array.shape:
        raise FeatureError(f"it is empty: shape {shape}")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise FeatureError(f"its dtype is {array.dtype}, not a real number")
    if not np.isfinite(array).all():
        raise FeatureError("it holds NaN or infinity")
    wanted = np.dtype(dtype) if dtype else array.dtype if array.dtype in KEPT_DTYPES else np.dtype(np.float32)
    converted = array.astype(wanted, copy=False)
    if converted.dtype != array.dtype and not np.isfinite(converted).all():
        raise FeatureError(f"its values do not fit in {wanted}")
    return converted


def _choose(arrays: np.lib.npyio.NpzFile, key: str | None) -> np.ndarray:
    names = arrays.files
    if key is None:
        key = DEFAULT_KEY if DEFAULT_KEY in names else names[0] if len(names) == 1 else None
    if key is None:
        raise FeatureError(f"it holds several arrays ({listing(names)}): choose one with --key")
    if key not in names:
        raise FeatureError(f"it has no array '{key}' (it has: {listing(names)})")
    chosen: np.ndarray = arrays[key]
    return chosen


def _read_all(
    sources: Sequence[Path], *, key: str | None, dtype: str | None, bad: list[tuple[Path, str]]
) -> Iterator[tuple[Path, np.ndarray | None]]:
    """Yield each file's array in order, read a few ahead; None where it is bad."""
    remaining = iter(sources)
    with ThreadPoolExecutor(READERS) as pool:

        def submit(path: Path) -> tuple[Path, Future[np.ndarray]]:
            return path, pool.submit(read_array, path, key=key, dtype=dtype)

        ahead = [submit(path) for path in islice(remaining, 2 * READERS)]
        while ahead:
            path, future = ahead.pop(0)
            try:
                array: np.ndarray | None = future.result()
            except FeatureError as error:
                bad.append((path, error.message))
                array = None
            ahead += [submit(path) for path in islice(remaining, 1)]
            yield path, array


def _write(file: h5py.File, path: Path, array: np.ndarray, *, fps: float | None) -> None:
    node = file.create_dataset(path.stem, data=array)
    node.attrs["source"] = str(path)
    if fps:
        node.attrs["fps"] = fps
        node.attrs["duration"] = len(array) / fps


def _refuse_duplicates(paths: Sequence[Path]) -> None:
    names: dict[str, Path] = {}
    for path in paths:
        other = names.setdefault(path.stem, path)
        if other is not path:
            raise FeatureError(
                f"{other} and {path} would both be written as '{path.stem}'.",
                hint="Rename one, or convert them apart.",
            )
