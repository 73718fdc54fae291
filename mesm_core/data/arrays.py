"""Feature arrays from .npy and .npz files, checked; never unpickled."""

from __future__ import annotations

import glob
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from mesm_core.errors import FeatureError, listing

SUFFIXES = (".npy", ".npz")
DEFAULT_KEY = "features"
TRIES = 5
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
        matches = [Path(line.strip()) for line in _lines(path) if line.strip()]
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
        FeatureError: two files give the same name, the regex does not fit a name, or is none.
    """
    try:
        pattern = re.compile(name_regex) if name_regex else None
    except re.error as error:
        raise FeatureError(f"--name-regex {name_regex!r} is not a regular expression: {error}.") from error
    names: dict[str, Path] = {}
    for path in paths:
        name = path.stem
        if pattern is not None:
            match = pattern.search(path.name)
            if match is None:
                raise FeatureError(f"--name-regex {name_regex!r} does not fit {path.name}.")
            name = match[1] if pattern.groups else match[0]
        other = names.setdefault(name, path)
        if other is not path:
            raise FeatureError(
                f"{other} and {path} would both be written as '{name}'.",
                hint="Rename one, convert them apart, or tell them apart with --name-regex.",
            )
    return names


def read_array(path: Path, *, key: str | None = None, dtype: str | None = None) -> np.ndarray:
    """Return a file's features (frames, dim), float16 or float32.

    Args:
        key: array of an .npz to take; default: ``features``, or the only one.
        dtype: ``float16`` or ``float32`` to convert to; default: as stored, float32 for any other.

    Raises:
        FeatureError: the file is unreadable, holds Python objects, has another shape, NaN or infinity.
    """

    def load() -> np.ndarray:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else _choose(loaded, key)

    try:
        array = parsed(load)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise FeatureError("it holds Python objects, which are never loaded") from error
        raise FeatureError(f"it cannot be read ({error})") from error
    array = _squeeze(array)
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise FeatureError(f"its dtype is {array.dtype}, not a real number")
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


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FeatureError(f"The list {path} is not UTF-8 text (byte {error.start}).") from error


def _squeeze(array: np.ndarray) -> np.ndarray:
    shape = array.shape
    while array.ndim > 2 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    if array.ndim != 2:
        raise FeatureError(f"its shape {shape} does not squeeze to (frames, dim)")
    if 0 in shape:
        raise FeatureError(f"it is empty: shape {shape}")
    return array


def _choose(arrays: np.lib.npyio.NpzFile, key: str | None) -> np.ndarray:
    with arrays:
        names = arrays.files
        if key is None:
            key = DEFAULT_KEY if DEFAULT_KEY in names else names[0] if len(names) == 1 else None
        if key is None:
            raise FeatureError(f"it holds several arrays ({listing(names)}): choose one with --key")
        if key not in names:
            raise FeatureError(f"it has no array '{key}' (it has: {listing(names)})")
        chosen: np.ndarray = arrays[key]
        return chosen
