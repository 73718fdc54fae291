"""Reads and checks feature arrays from .npy and .npz files; never unpickles."""

from __future__ import annotations

import glob
import math
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import IO, Any, TypeVar

import numpy as np

from mesm_core.data.archives import SEPARATOR, SUFFIXES, Archive, Member, is_archive, refuse_bomb
from mesm_core.errors import FeatureError, listing
from mesm_core.hdf5 import NUMBERS, check_size
from mesm_core.inputs import has_surrogates, read_text, reading, reason, split_lines

DEFAULT_KEY = "features"
TRIES = 5
REGEX_SECONDS = 10.0
"""Time limit for matching ``--name-regex`` with all names; some expressions take exponential time."""
Value = TypeVar("Value")
KEPT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))
Source = Path | Archive


def find_sources(pattern: str | Path) -> list[Source]:
    """Return the feature files and archives of a folder, a glob pattern, a file, or a .txt list of paths, in order.

    ``ARCHIVE::folder`` stands for the folder of that name inside an archive.

    Raises:
        FeatureError: no file is found, or a file is neither .npy, .npz nor an archive.
    """
    path = Path(pattern)
    outside, separator, inside = str(pattern).rpartition(SEPARATOR)
    if not _exists(path) and separator:
        return [_inside(source, inside) for source in find_sources(outside)]
    matches: list[Source]
    if path.is_dir():
        below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names if name.endswith(SUFFIXES))
        matches = [*sorted(below, key=lambda file: file.parts)]
    elif path.is_file() and path.suffix == ".txt":
        matches = [_source(line.strip()) for line in split_lines(read_text(path, error=FeatureError)) if line.strip()]
    elif path.is_file():
        matches = [_source(str(path))]
    else:
        matches = [_source(p) for p in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207 (absolute patterns)
    if not matches:
        kind = "The folder" if path.is_dir() else "The path or pattern"
        raise FeatureError(f"{kind} {pattern} has no .npy or .npz files.", hint="Check the path; quote patterns.")
    wrong = [source for source in matches if isinstance(source, Path) and source.suffix not in SUFFIXES]
    if wrong:
        raise FeatureError(f"Not .npy or .npz files, nor archives (.tar, .tar.gz, .zip) of them: {listing(wrong)}.")
    return matches


def _source(text: str) -> Source:
    """Return the source of a path or of ``ARCHIVE::folder``."""
    outside, separator, inside = text.rpartition(SEPARATOR)
    if separator and not _exists(Path(text)):
        return _inside(_source(outside), inside)
    path = Path(text)
    return Archive(path) if is_archive(path) else path


def _exists(path: Path) -> bool:
    with reading(path, FeatureError):  # a name may be longer than the system allows
        return path.exists()


def _inside(source: Source, folder: str) -> Archive:
    """Return a folder inside an archive as a source."""
    folder = folder.strip("/")
    if not isinstance(source, Archive):
        raise FeatureError(f"{source} is not an archive, so it has no folder '{folder}'.")
    if folder in {"", "."} or ".." in PurePath(folder).parts:
        raise FeatureError(f"'{folder}' cannot be a folder inside {source.path}.")
    return replace(source, folder=folder)


class VideoNames:
    """Names videos after their feature files: by the stem, or by the first group of a regex searched in the file name.

    Args:
        name_regex: the regex, or None for the stem; name_format: template with ``{}`` for the name, e.g. ``{}.avi``.

    Raises:
        FeatureError: the regex is invalid, or the format has no ``{}``.
    """

    def __init__(self, name_regex: str | None = None, name_format: str | None = None) -> None:
        self._regex, self._seconds_left = name_regex, REGEX_SECONDS
        self._pattern = None if name_regex is None else _compiled(name_regex)
        if name_format is not None and "{}" not in name_format:
            raise FeatureError(
                f"--name-format {name_format!r} has no {{}}, so all videos would have one name.",
                hint="Write {} where the name of the file goes, e.g. '{}.avi'.",
            )
        self._format = name_format or "{}"

    def of(self, path: PurePath) -> str:
        """Return the name of the video whose features a file holds.

        Raises:
            FeatureError: the regex does not match, or takes too long.
        """
        return self._format.replace("{}", path.stem if self._pattern is None else self._matched(path, self._pattern))

    def _matched(self, path: PurePath, pattern: Any) -> str:
        began = time.monotonic()
        try:
            match = pattern.search(path.name, timeout=max(self._seconds_left, 0.001))
        except TimeoutError as error:
            raise FeatureError(
                f"--name-regex {self._regex!r} takes more than {REGEX_SECONDS:g} seconds (at {path.name}).",
                hint="Avoid nested repetitions such as (a+)+, which take exponential time.",
            ) from error
        self._seconds_left -= time.monotonic() - began
        name: str | None = None if match is None else match[1] if pattern.groups else match[0]
        if not name:
            raise FeatureError(f"--name-regex {self._regex!r} does not match {path.name}.")
        return name


def by_name(paths: Sequence[Path], *, name_regex: str | None = None, name_format: str | None = None) -> dict[str, Path]:
    """Return the files by video, named as ``VideoNames`` does.

    Raises:
        FeatureError: two files give the same name, or the regex is invalid, does not match a name, or takes too long.
    """
    naming = VideoNames(name_regex, name_format)
    found: dict[str, Path] = {}
    for path in paths:
        name = naming.of(path)
        other = found.setdefault(name, path)
        if other is not path:
            raise same_name(other, path, name)
    return found


def _compiled(name_regex: str) -> Any:
    import regex  # supports a timeout, unlike ``re``

    try:
        return regex.compile(name_regex)
    except (regex.error, OverflowError, RecursionError, MemoryError, ValueError) as error:
        raise FeatureError(f"--name-regex {name_regex!r} is not a regular expression: {reason(error)}.") from error


def same_name(one: object, other: object, name: str) -> FeatureError:
    """Return the error for two files whose videos would have the same name."""
    return FeatureError(
        f"{one} and {other} would both be written as '{name}'.",
        hint="Rename one, convert them separately, or distinguish them with --name-regex. ARCHIVE::FOLDER selects "
        "one folder of an archive.",
    )


def name_problem(name: str) -> str | None:
    r"""Return why a name cannot be used for a video, or None; names of HDF5 datasets are UTF-8.

    >>> name_problem("caf\udce9")
    'its name is not UTF-8: rename the file'
    """
    if has_surrogates(name):
        return "its name is not UTF-8: rename the file"
    if name in {"", "."} or "\0" in name:
        return f"{name!r} cannot be the name of a video: rename the file"
    return None


def read_array(path: Path | Member, *, key: str | None = None, dtype: str | None = None) -> np.ndarray:
    """Return a file's features (frames, dim), float16 or float32.

    Args:
        key: array of an .npz file to read; default: ``features``, or the only array.
        dtype: ``float16`` or ``float32`` to convert to; default: as stored, or float32 for other types.

    Raises:
        FeatureError: the file is unreadable, has Python objects, another shape, NaN or infinity.
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
    """Return ``read()``, which parses a NumPy header, repeated after a spurious SystemError.

    Python before 3.11.8 may raise SystemError if two threads parse at the same time (gh-106905).
    """
    for _ in range(TRIES):
        with suppress(SystemError):
            return read()
    return read()


def all_finite(array: np.ndarray) -> bool:
    """Return whether no value is NaN or infinite."""
    if np.issubdtype(array.dtype, np.integer):
        return True
    if array.dtype == np.float16:
        # In NaN and infinity, all bits of the exponent are set.
        return bool((np.ascontiguousarray(array).view(np.uint16) & 0x7C00).max(initial=0) < 0x7C00)
    return bool(np.isfinite(array).all())


@dataclass(frozen=True)
class Header:
    """The header of a .npy file; the numbers begin at byte ``offset``."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[np.generic]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size of the numbers in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> Header:
    """Return the header of an open .npy file.

    Raises:
        ValueError, or another error of NumPy's parser: the header is damaged.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"its header gives the shape {shape}")
    return Header(shape, fortran, dtype, file.tell())


def _load(path: Path | Member, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if not zipped:
            return _read_npy(file, size)
        with zipfile.ZipFile(file) as archive:
            member = _choose({name.removesuffix(".npy"): name for name in archive.namelist()}, key)
            info = archive.getinfo(member)
            refuse_bomb(info.file_size, info.compress_size)
            with archive.open(member) as array:
                return _read_npy(array, info.file_size)


def _read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """Return the array of an open .npy file of ``size`` bytes, after checking its header."""
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
    """Return the member of an .npz file to read; ``members`` maps array names to file names."""
    names = list(members)
    if key is None:
        key = DEFAULT_KEY if DEFAULT_KEY in names else names[0] if len(names) == 1 else None
    if key is None:
        raise FeatureError(f"it holds several arrays ({listing(names)}): choose one with --key")
    if key not in names:
        raise FeatureError(f"it has no array '{key}' (it has: {listing(names)})")
    return members[key]
