"""Where an output really lies, whether it may be written there, and what to tell where it cannot be."""

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
    """Refuse an output that cannot be written, or that exists and may not be replaced; nothing is written.

    Raises:
        OutputError: ``path`` is a folder, exists while ``overwrite`` is off, or lies where no file can be made.
    """
    try:
        if is_stream(path):
            # What a disk's own device holds is lost like a file.
            if stat.S_ISBLK(path.stat().st_mode) and not overwrite:
                raise OutputError(f"{path} is a disk.", hint="Add --overwrite to write over what it holds.")
            return
        real = real_path(path)
        if real.is_dir():
            raise OutputError(f"{path} is a folder.", hint="Give the name of a file.")
        if real.exists() and not overwrite:
            raise OutputError(f"{path} exists already.", hint="Add --overwrite to replace it, or choose another name.")
        _check_folder(real.parent)
    except OSError as error:
        raise could_not_write(path, error) from error


def refuse_inputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse an output that is one of a command's inputs, or the same file as another output, by whatever name.

    Args:
        outputs, inputs: files; None for what was not given. Devices and pipes may be both.

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
                f"{path} is one of the files this command reads{same}: it was left as it is.",
                hint="Choose another name for the output.",
            )
        if key in written:
            raise OutputError(
                f"{written[key]} and {path} would be the same file.", hint="Give each output a name of its own."
            )
        written[key] = path


def need_room(path: Path, needs: int, *, freed: int = 0) -> None:
    """Refuse an output for which there is not enough room, before it is begun.

    Args:
        needs: its size in bytes; freed: bytes that are given back before it is written.

    Raises:
        OutputError: the disk has less room.
    """
    free = _free(path)
    if free is not None and needs > free + freed:
        raise OutputError(
            f"{path} needs about {size_text(needs)}, and {size_text(free)} are free in {_standing(path)}.",
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
    """Return the absolute path that an output's name leads to, all links followed; there may be nothing there yet.

    Raises:
        OSError: the links lead in a circle.
    """
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return real


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors into an OutputError about ``path``.

    Raises:
        OutputError: it could not be written.
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
    """Return what to tell of an output that the system would not take.

    Args:
        needs: size in bytes, where it is known; temporary: the part that is written, which is given back.
    """
    message = f"{path} could not be written: {error.strerror or error}"
    if error.errno not in NO_ROOM:
        return OutputError(f"{message}.")
    free = _free(path)
    if free is not None:
        with suppress(OSError):
            free += 0 if temporary is None else temporary.stat().st_blocks * 512
        wanted = "" if needs is None else f"it needs {size_text(needs)}, and "
        message = f"{message} ({wanted}{size_text(free)} are free in {_standing(path)})"
    return OutputError(f"{message}.", hint="Free some space, or choose another disk.")


def size_text(size: int) -> str:
    """Return a size in the unit that suits it.

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
    """Return the number of an open file of this process that a path such as /dev/stdout names, or None."""
    for _ in range(MOST_LINKS):
        folder = os.path.realpath(path.parent)
        found = _DESCRIPTORS.fullmatch(folder)
        if path.name.isdigit() and (folder == "/dev/fd" or (found and int(found[1]) == os.getpid())):
            return int(path.name)
        if not os.path.islink(path):  # noqa: PTH114 - which is False, too, for a name that no file can have
            break
        path = path.parent / path.readlink()
    return None


def _identity(path: Path) -> object | None:
    """Return what tells whether two names are the same file; None for what is no file (a device, a folder)."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    except ValueError:  # a name that no file can have
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _check_folder(folder: Path) -> None:
    """Raise where no file can be made in a folder, or the folder cannot be made."""
    standing = _standing(folder / "file")
    if not standing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{standing} is no folder")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{standing} may not be written")


def _standing(path: Path) -> Path:
    """Return the nearest thing above an output that is there already."""
    return next(parent for parent in Path(os.path.realpath(path)).parents if os.path.lexists(parent))


def _free(path: Path) -> int | None:
    """Return the bytes that are free where an output is to lie; None where the system does not say."""
    try:
        found = os.statvfs(_standing(path))
    except (OSError, AttributeError):
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None
