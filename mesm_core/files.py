"""Files are written beside their place and renamed, so that no reader ever sees half of one."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mesm_core.errors import DataError, OutputError

LONGEST_LINK = 200


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError where ``path`` exists and may not be replaced."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", hint="Give the name of a file.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already.", hint="Add --overwrite to replace it, or choose another name.")


def text_lines(path: Path, *, what: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, plain or ``.gz``, as they are asked for.

    Args:
        what: what it should hold, for messages.

    Raises:
        DataError: it is missing, cannot be read, is cut short, or is not UTF-8.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="\n") as file:
            yield from file
    except FileNotFoundError:
        raise DataError(f"No {what} at {path}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes its place, on failure it is removed.

    Raises:
        OutputError: the target exists and ``overwrite`` is off, or its folder cannot be written.
    """
    refuse_existing(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OutputError(f"{path.parent} cannot be written: {error.strerror or error}.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def follow(path: Path) -> Path:
    """Return where a file really lies: git and zip may leave a link as a small text that names its target."""
    if path.is_file() and path.stat().st_size < LONGEST_LINK:
        try:
            target = path.parent / path.read_text(encoding="utf-8").strip()
            return target if target.is_file() else path
        except (OSError, ValueError):
            return path
    return path


def _sync_folder(folder: Path) -> None:
    """Make a renaming last through a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
