"""Checks of output paths before they are written, and errors for outputs that cannot be written."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mesm_core.errors import OutputError

MOST_LINKS = 40
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DESCRIPTORS = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd")


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, or that exists while ``overwrite`` is off. Writes nothing.

    Raises:
        OutputError: ``path`` is a folder, exists while ``overwrite`` is off, or cannot be created in its folder.
    """
    try:
        if is_stream(path):
            # Writing to a block device destroys its content, as with a file.
            if stat.S_ISBLK(path.stat().st_mode) and not overwrite:
                raise OutputError(f"{path} is a disk.", hint="Add --overwrite to replace its content.")
            return
        real = real_path(path)
        if real.is_dir():
            raise OutputError(f"{path} is a folder.", hint="Give the name of a file.")
        if real.exists() and not overwrite:
            raise OutputError(f"{path} already exists.", hint="Add --overwrite to replace it, or choose another name.")
        _check_folder(real.parent)
    except OSError as error:
        raise could_not_write(path, error) from error


def refuse_inputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse an output that is the same file as an input or another output, even under another name.

    Args:
        outputs, inputs: files; None for options that were not given. Devices and pipes may be both.

    Raises:
        OutputError: two of them are the same file; the message names both.
    """
    read: dict[object, Path] = {}
    for path in inputs:
        if path is not None and (key := _identity(path)) is not None:
            read.setdefault(key, path)
    written: dict[object, Path] = {}
    for path in outputs:
        if path is None or (key := _identity(path)) is None:
            continue
        if key in read:
            same = "" if path == read[key] else f" (it is {read[key]})"
            raise OutputError(
                f"{path} is one of the files this command reads{same}; it was not changed.",
                hint="Choose another name for the output.",
            )
        if key in written:
            raise OutputError(
                f"{written[key]} and {path} would be the same file.", hint="Give each output a different name."
            )
        written[key] = path


def need_room(path: Path, needs: int, *, freed: int = 0) -> None:
    """Refuse an output that does not fit on the disk, before writing it.

    Args:
        needs: size of the output in bytes; freed: bytes that will be freed before it is written.

    Raises:
        OutputError: the disk has too little free space.
    """
    free = _free(path)
    if free is not None and needs > free + freed:
        raise OutputError(
            f"{path} needs about {size_text(needs)}, but only {size_text(free)} are free in {_existing_parent(path)}.",
            hint="Free some space, or choose another disk. Nothing was written.",
        )


def is_stream(path: Path) -> bool:
    """Return whether an output is a device, a pipe, or an open file by number (/dev/stdout, /dev/fd/63)."""
    if descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def real_path(path: Path) -> Path:
    """Return the absolute path of an output, with all links followed. The file need not exist.

    Raises:
        OSError: the links form a cycle.
    """
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return real


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert system errors inside the context to an OutputError about ``path``.

    Raises:
        OutputError: ``path`` could not be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise could_not_write(path, error) from error


def could_not_write(
    path: Path, error: OSError, *, needs: int | None = None, temporary: Path | None = None
) -> OutputError:
    """Return the error for an output that the system could not write.

    Args:
        needs: size in bytes, if known; temporary: the partly written file, whose space will be freed.
    """
    message = f"{path} could not be written: {error.strerror or error}"
    if error.errno not in NO_ROOM:
        return OutputError(f"{message}.")
    free = _free(path)
    if free is not None:
        with suppress(OSError):
            free += 0 if temporary is None else temporary.stat().st_blocks * 512
        required = "" if needs is None else f"it needs {size_text(needs)}, and "
        message = f"{message} ({required}{size_text(free)} are free in {_existing_parent(path)})"
    return OutputError(f"{message}.", hint="Free some space, or choose another disk.")


def size_text(size: int) -> str:
    """Return a size with a suitable unit.

    >>> size_text(12), size_text(340_000), size_text(1_234_000_000)
    ('12 bytes', '340.0 kB', '1.2 GB')
    """
    if size < 1000:
        return f"{size} bytes"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 1000 or unit == "TB":
            break
    return f"{value:.1f} {unit}"


def descriptor(path: Path) -> int | None:
    """Return the file descriptor that a path such as /dev/stdout refers to, or None."""
    for _ in range(MOST_LINKS):
        folder = os.path.realpath(path.parent)
        found = _DESCRIPTORS.fullmatch(folder)
        if path.name.isdigit() and (folder == "/dev/fd" or (found and int(found[1]) == os.getpid())):
            return int(path.name)
        if not os.path.islink(path):  # noqa: PTH114 - False also for invalid names
            break
        path = path.parent / path.readlink()
    return None


def _identity(path: Path) -> object | None:
    """Return a value that is equal for names of the same file; None for devices and folders."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    except ValueError:  # an invalid name
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _check_folder(folder: Path) -> None:
    """Raise if no file can be created in a folder, or if the folder cannot be created."""
    parent = _existing_parent(folder / "file")
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{parent} is not writable")


def _existing_parent(path: Path) -> Path:
    """Return the nearest existing parent of an output."""
    return next(parent for parent in Path(os.path.realpath(path)).parents if os.path.lexists(parent))


def _free(path: Path) -> int | None:
    """Return the number of free bytes for an output, or None if the system does not report it."""
    try:
        status = os.statvfs(_existing_parent(path))
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize if status.f_blocks else None
