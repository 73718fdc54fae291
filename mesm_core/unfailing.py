"""A file for libraries that do not handle a full disk."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any


class UnfailingFile(io.RawIOBase):
    """A file whose writes never fail; it records the first system error for its owner instead.

    HDF5 crashes the process if it cannot flush its data when it closes a file, and the writers of torch and NumPy hide
    the system error. After ``failure`` is set, nothing more is written.

    Args:
        mode: mode of opening; undo: remember overwritten bytes, for ``restore``.

    Attributes:
        failure: the first error, or None.
        size: size of the file in bytes, or the size that it would have with enough room.
    """

    def __init__(self, path: Path, mode: str, *, undo: bool = False) -> None:
        self._file = io.FileIO(path, mode)
        self._undo: list[tuple[int, bytes]] | None = [] if undo else None
        self._whole = os.fstat(self._file.fileno()).st_size
        self.failure: OSError | None = None
        self.size = os.fstat(self._file.fileno()).st_size

    def write(self, data: Any) -> int:
        """Write all of ``data`` (anything with a buffer of bytes) and return its length."""
        view = memoryview(data).cast("B")
        start, done = self._file.tell(), 0
        try:
            if self._undo is not None and start < self._whole and self.failure is None:
                self._undo.append((start, os.pread(self.fileno(), min(len(view), self._whole - start), start)))
            while self.failure is None and done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            self.failure = error
        if self.failure is not None:
            self._file.seek(start + len(view))
        self.size = max(self.size, start + len(view))
        return len(view)

    def check(self) -> None:
        """Raise the first error of writing, if there was one."""
        if self.failure is not None:
            raise self.failure

    def restore(self) -> None:
        """Restore the content from when the file was opened with ``undo``. Needs no disk space."""
        for start, content in reversed(self._undo or []):
            os.pwrite(self.fileno(), content, start)
        os.truncate(self.fileno(), self._whole)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, by default to the position, and return it."""
        size = self._file.tell() if size is None else size
        self._whole = min(self._whole, size)
        try:
            if self.failure is None:
                self._file.truncate(size)
        except OSError as error:
            self.failure = error
        self.size = size
        return size

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer and return how many."""
        return self._file.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position and return it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._file.fileno()

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file; an error is recorded like those of writing."""
        try:
            self._file.close()
        except OSError as error:
            self.failure = self.failure or error
        super().close()
