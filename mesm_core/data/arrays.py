"""Feature arrays from .npy and .npz files, checked; never unpickled."""

from __future__ import annotations

import glob
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from mesm_core.data.hdf5 import NUMBERS, check_size
from mesm_core.errors import FeatureError, listing
from mesm_core.inputs import has_surrogates, read_text, reason, split_lines

SUFFIXES = (".npy", ".npz")
DEFAULT_KEY = "features"
TRIES = 5
REGEX_SECONDS = 10.0
"""Time for ``--name-regex`` on all names together; some expressions never end on some names."""
Value = TypeVar("Value")
KEPT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


def find_sources(pattern: str | Path) -> list[Path]:
    """Return the .npy and .npz files of a folder, a glob, a file, or a .txt list of paths, in order.

    Raises:
        FeatureError: nothing is found, or something else than .npy and .npz is.
    """
    path = Path(pattern)
    if path.is_dir():
        matches = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES)
    elif path.is_file() and path.suffix == ".txt":
        matches = [Path(line.strip()) for line in split_lines(read_text(path, error=FeatureError)) if line.strip()]
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
    return matches


def by_name(paths: Sequence[Path], *, name_regex: str | None = None) -> dict[str, Path]:
    """Return the files by video: their stems, or what the first group of ``name_regex`` finds in their names.

    Raises:
        FeatureError: two files give the same name, the regex does not fit a name, is none, or takes too long.
    """
    found = [path.stem for path in paths] if name_regex is None else _found_by_regex(paths, name_regex)
    names: dict[str, Path] = {}
    for name, path in zip(found, paths, strict=True):
        other = names.setdefault(name, path)
        if other is not path:
            raise FeatureError(
                f"{other} and {path} would both be written as '{name}'.",
                hint="Rename one, convert them apart, or tell them apart with --name-regex.",
            )
    return names


def wrong_name(name: str) -> str | None:
    r"""Return why a video cannot be called so, or None: names of datasets are UTF-8.

    >>> wrong_name("caf\udce9")
    'its name is not UTF-8: rename the file'
    """
    if has_surrogates(name):
        return "its name is not UTF-8: rename the file"
    if name in {"", "."} or "\0" in name:
        return f"{name!r} cannot be the name of a video: rename the file"
    return None


def _found_by_regex(paths: Sequence[Path], name_regex: str) -> list[str]:
    import regex  # unlike ``re`` it can be told to stop

    try:
        pattern = regex.compile(name_regex)
    except (regex.error, OverflowError, RecursionError, MemoryError, ValueError) as error:
        raise FeatureError(f"--name-regex {name_regex!r} is not a regular expression: {reason(error)}.") from error
    found = []
    ends = time.monotonic() + REGEX_SECONDS
    for path in paths:
        try:
            match = pattern.search(path.name, timeout=max(ends - time.monotonic(), 0.001))
        except TimeoutError as error:
            raise FeatureError(
                f"--name-regex {name_regex!r} takes more than {REGEX_SECONDS:g} seconds (at {path.name}).",
                hint="Repetitions inside repetitions, as in (a+)+, take forever: write it without them.",
            ) from error
        name = None if match is None else match[1] if pattern.groups else match[0]
        if not name:
            raise FeatureError(f"--name-regex {name_regex!r} does not fit {path.name}.")
        found.append(name)
    return found


def read_array(path: Path, *, key: str | None = None, dtype: str | None = None) -> np.ndarray:
    """Return a file's features (frames, dim), float16 or float32.

    Args:
        key: array of an .npz to take; default: ``features``, or the only one.
        dtype: ``float16`` or ``float32`` to convert to; default: as stored, float32 for any other.

    Raises:
        FeatureError: the file is unreadable, holds Python objects, has another shape, NaN or infinity.
    """

    try:
        array = parsed(lambda: _load(path, key))
    except FeatureError:
        raise
    except Exception as error:  # zip, zlib and NumPy's header parser raise anything for a damaged file
        raise FeatureError(f"it cannot be read ({reason(error)})") from error
    array = _squeeze(array)
    if not all_finite(array):
        raise FeatureError("it holds NaN or infinity")
    wanted = np.dtype(dtype) if dtype else array.dtype if array.dtype in KEPT_DTYPES else np.dtype(np.float32)
    with np.errstate(over="ignore"):
        converted = array.astype(wanted, copy=False)
    if converted.dtype != array.dtype and not all_finite(converted):
        raise FeatureError(f"its values do not fit in {wanted}")
    return converted


def parsed(read: Callable[[], Value]) -> Value:
    """Return ``read()``, which parses a NumPy header, perhaps beside other threads.

    Python before 3.11.8 may raise SystemError where two threads parse at once (gh-106905); trying again helps.
    """
    for _ in range(TRIES):
        with suppress(SystemError):
            return read()
    return read()


def all_finite(array: np.ndarray) -> bool:
    """Return whether no value is NaN or infinite: in one pass where the sum shows it."""
    if np.issubdtype(array.dtype, np.integer):
        return True
    if array.dtype == np.float16:
        # NaN and infinity are the values whose exponent is all ones.
        return bool((np.ascontiguousarray(array).view(np.uint16) & 0x7C00).max(initial=0) < 0x7C00)
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()
    return bool(np.isfinite(total)) or bool(np.isfinite(array).all())


@dataclass(frozen=True)
class Header:
    """What a .npy header says of the numbers behind it, which begin at byte ``offset``."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[np.generic]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes that the numbers take."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> Header:
    """Return the header of an open .npy file.

    Raises:
        ValueError, or another error of NumPy's parser: it is damaged.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"its header gives the shape {shape}")
    return Header(shape, fortran, dtype, file.tell())


def _load(path: Path, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
        if not zipped:
            file.seek(0)
            return _read_npy(file, os.fstat(file.fileno()).st_size)
    with zipfile.ZipFile(path) as archive:
        member = _choose({name.removesuffix(".npy"): name for name in archive.namelist()}, key)
        with archive.open(member) as file:
            return _read_npy(file, archive.getinfo(member).file_size)


def _read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """Return the array of an open .npy file of ``size`` bytes, after a look at what its header claims."""
    header = read_header(file)
    if header.dtype.hasobject:
        raise FeatureError("it holds Python objects, which are never loaded")
    if header.dtype.kind not in NUMBERS or header.dtype.names or header.dtype == np.bool_:
        raise FeatureError(f"its dtype is {header.dtype}, not a real number")
    if header.nbytes > size - header.offset:
        raise FeatureError(
            f"it cannot be read (its header promises the shape {header.shape}, {header.nbytes:,} bytes, "
            f"but the file has {max(size - header.offset, 0):,})"
        )
    check_size(header.shape, where="it")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _squeeze(array: np.ndarray) -> np.ndarray:
    shape = array.shape
    while array.ndim > 2 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    if array.ndim != 2:
        raise FeatureError(f"its shape {shape} does not squeeze to (frames, dim)")
    if 0 in shape:
        raise FeatureError(f"it is empty: shape {shape}")
    return array


def _choose(members: dict[str, str], key: str | None) -> str:
    """Return the archive's member to read; ``members``: their file names by the arrays' names."""
    names = list(members)
    if key is None:
        key = DEFAULT_KEY if DEFAULT_KEY in names else names[0] if len(names) == 1 else None
    if key is None:
        raise FeatureError(f"it holds several arrays ({listing(names)}): choose one with --key")
    if key not in names:
        raise FeatureError(f"it has no array '{key}' (it has: {listing(names)})")
    return members[key]
