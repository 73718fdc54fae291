"""Writing of output files. Files are written to a temporary file in the same folder and renamed.

Readers therefore never see a partly written file. Links are followed: the link is kept, and its target is replaced.
Devices, pipes and /dev/stdout are written directly. No other module opens files for writing.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, TextIO, cast

from mesm_core.places import could_not_write, descriptor, explained, is_stream, real_path, refuse_existing
from mesm_core.unfailing import UnfailingFile

NAME_BYTES = 60


class _Draft:
    """An output ``path`` that is written to the file ``temporary`` first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary: Path | None = None
        self._lock: int | None = None
        self.stream = is_stream(path)
        self.real = real_path(path)
        folder = Path(tempfile.gettempdir()) if self.stream else self.real.parent
        self.made = _made_folder(folder)
        self.new = not self.real.exists()
        try:
            self.temporary, self._lock = _claimed(folder, _start_of_draft(self.real))
        except OSError:
            self.discard()
            raise

    def finish(self) -> None:
        """Flush the temporary file to disk, and set the permissions of the existing output, or those of a new file."""
        if self.temporary is not None and not self.stream:
            self.temporary.chmod(0o666 & ~_umask() if self.new else stat.S_IMODE(self.real.stat().st_mode))
            with self.temporary.open("rb") as file:
                os.fsync(file.fileno())

    def take_place(self) -> None:
        """Move the temporary file to the output, or copy it to a stream."""
        assert self.temporary is not None
        if self.stream:
            with self.temporary.open("rb") as source, _open_stream(self.path) as target:
                shutil.copyfileobj(source, target)
            self.temporary.unlink()
        else:
            self.temporary.replace(self.real)
            _sync_folder(self.real.parent)
        self._unlock()
        self.temporary = None

    def take_back(self) -> None:
        """Remove an output that was placed and did not exist before."""
        if self.new and not self.stream:
            self.real.unlink(missing_ok=True)
            self._remove_folders()

    def discard(self) -> None:
        """Remove the temporary file and the folders that were made for it."""
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)
            self._unlock()
            self.temporary = None
        self._remove_folders()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _remove_folders(self) -> None:
        with suppress(OSError):
            for folder in self.made:
                folder.rmdir()


_together: ContextVar[list[_Draft] | None] = ContextVar("together", default=None)


@contextmanager
def together() -> Iterator[None]:
    """Place all files that are written inside the context when it ends, or none of them if it fails.

    Raises:
        OutputError: a file could not be placed.
    """
    if _together.get() is not None:  # the outer context places the files
        yield
        return
    drafts: list[_Draft] = []
    token = _together.set(drafts)
    placed: list[_Draft] = []
    try:
        yield
        for draft in drafts:
            try:
                draft.take_place()
            except OSError as error:
                for earlier in reversed(placed):
                    earlier.take_back()
                raise could_not_write(draft.path, error, temporary=draft.temporary) from error
            placed.append(draft)
    finally:
        _together.reset(token)
        for draft in reversed(drafts):
            if draft not in placed:
                draft.discard()


@contextmanager
def replacing(path: Path, *, overwrite: bool = True, needs: int | None = None) -> Iterator[Path]:
    """Yield a temporary path, which replaces ``path`` on success and is removed on failure.

    Output to a device or a pipe is also written to a temporary file first, and then copied.

    Args:
        needs: size in bytes, if known, for the message about a full disk.

    Raises:
        OutputError: the target exists and ``overwrite`` is off, or it cannot be written.
    """
    refuse_existing(path, overwrite=overwrite)
    draft = None
    waiting = _together.get()
    try:
        draft = _Draft(path)
        assert draft.temporary is not None
        yield draft.temporary
        draft.finish()
        if waiting is not None:
            waiting.append(draft)
        else:
            draft.take_place()
    except BrokenPipeError:
        raise
    except OSError as error:
        part = None if draft is None else draft.temporary
        raise could_not_write(path, error, needs=needs, temporary=part) from error
    finally:
        if draft is not None and draft.temporary is not None and (waiting is None or draft not in waiting):
            draft.discard()


def write_atomically(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write ``content`` to ``path`` atomically.

    Raises:
        OutputError: the target exists and ``overwrite`` is off, or it cannot be written.
    """
    if is_stream(path):
        refuse_existing(path, overwrite=overwrite)
        with explained(path), _open_stream(path) as file:
            file.write(content)
        return
    with replacing(path, overwrite=overwrite, needs=len(content)) as temporary:
        temporary.write_bytes(content)


@contextmanager
def text_output(path: Path, *, overwrite: bool = True) -> Iterator[TextIO]:
    """Yield a UTF-8 text file for writing. Lines for a device or a pipe are written immediately.

    Raises:
        OutputError: the target exists and ``overwrite`` is off, or it cannot be written.
    """
    if is_stream(path):
        refuse_existing(path, overwrite=overwrite)
        with explained(path), io.TextIOWrapper(_open_stream(path), encoding="utf-8", line_buffering=True) as file:
            yield file
        return
    with replacing(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file


@contextmanager
def library_output(path: Path, *, overwrite: bool = True) -> Iterator[IO[bytes]]:
    """Yield a binary file for libraries that do not report a full disk properly, or crash.

    Raises:
        OutputError: the target exists and ``overwrite`` is off, or it cannot be written.
    """
    with replacing(path, overwrite=overwrite) as temporary:
        with UnfailingFile(temporary, "w+b") as file:
            yield cast("IO[bytes]", file)
        if file.failure is not None:
            raise could_not_write(path, file.failure, needs=file.size, temporary=temporary) from file.failure


def write_links(links: Mapping[Path, Path]) -> None:
    """Create relative links, path -> target, replacing existing ones. Creates all of them, or none.

    Raises:
        OutputError: a link could not be created.
    """
    ready: dict[Path, Path] = {}
    made: list[Path] = []
    try:
        for path, target in links.items():
            with explained(path):
                made += make_folder(path.parent)
                temporary = path.with_name(f".{path.name[:NAME_BYTES]}.{os.getpid()}.part")
                temporary.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
                ready[path] = temporary
        for path, temporary in list(ready.items()):
            with explained(path):
                temporary.replace(path)
            del ready[path]
        made = []
    finally:
        for temporary in ready.values():
            temporary.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def continued(path: Path, *, at: int) -> Iterator[IO[bytes]]:
    """Open a file for writing from byte ``at`` on. If writing fails, the bytes written so far are kept.

    For long writes that can be resumed. System errors are not converted.
    """
    with path.open("r+b" if at else "wb", buffering=0) as file:
        file.seek(at)
        file.truncate()
        yield file


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file, completely or not at all.

    Raises:
        OutputError: the line could not be written.
    """
    with explained(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        content = line.encode() + b"\n"
        try:
            done = 0
            while done < len(content):
                done += file.write(content[done:])
        except OSError:
            file.truncate(before)
            raise


def make_folder(folder: Path) -> list[Path]:
    """Create a folder and its parents; return the new folders, deepest first.

    Raises:
        OutputError: the folder cannot be created; no new folder remains.
    """
    with explained(folder):
        return _made_folder(folder)


def _made_folder(folder: Path) -> list[Path]:
    folder = real_path(folder)
    made: list[Path] = []
    try:
        for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            path.mkdir(exist_ok=True)
            made.insert(0, path)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
    except OSError:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
    return made


def discard_draft(path: Path) -> None:
    """Remove the temporary file of an output that a killed process has left; one that is being written is kept."""
    draft = path.with_name(f"{_start_of_draft(path)}part")
    with suppress(OSError):
        handle = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if _lock(handle, draft):
                draft.unlink()
        finally:
            os.close(handle)


def _start_of_draft(path: Path) -> str:
    """Return the start of the names of temporary files. It is cut off, because names have a maximum length."""
    return f".{os.fsencode(path.name)[:NAME_BYTES].decode(errors='ignore')}."


def _claimed(folder: Path, start: str) -> tuple[Path, int]:
    """Return an empty file in ``folder`` whose name starts with ``start``, and the descriptor that locks it.

    The name is always the same, so that a file left by a killed process is reused. If another process is writing the
    same output and holds the lock, another name is chosen.
    """
    path = folder / f"{start}part"
    with suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if _lock(handle, path):
            os.ftruncate(handle, 0)
            return path, handle
        os.close(handle)
    handle, name = tempfile.mkstemp(prefix=start, suffix=".part", dir=folder)
    return Path(name), handle


def _lock(handle: int, path: Path) -> bool:
    """Lock an open file; return whether this worked and it is still at ``path``, owned by this user, with one link."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, there = os.fstat(handle), path.lstat()
    except OSError:
        return False
    return os.path.samestat(ours, there) and ours.st_nlink == 1 and ours.st_uid == os.geteuid()


def _open_stream(path: Path) -> IO[bytes]:
    """Open a device, a pipe, or an open file of this process at its current position."""
    number = descriptor(path)
    if number is not None:
        return cast("IO[bytes]", open(os.dup(number), "wb"))  # noqa: PTH123
    return cast("IO[bytes]", path.open("wb"))


def _sync_folder(folder: Path) -> None:
    """Flush the renaming of a file to disk, if the system supports it."""
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
