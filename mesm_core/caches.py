"""Where caches lie, and notes about files that take long to read, found again without reading them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesm_core.errors import MesmError, OutputError
from mesm_core.files import write_atomically

VARIABLE = "MESM_CACHE"
NOTES = "files"
SETTLED_SECONDS = 2.0
"""Age of a file from which its time tells a later change: file systems keep times in steps, of up to 2 seconds."""


def cache_folder() -> Path:
    """Return ``$MESM_CACHE``, else ``mesm`` in the user's cache folder.

    Raises:
        OutputError: the user has no home folder.
    """
    folder = os.environ.get(VARIABLE)
    if folder:
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesm"
    except RuntimeError as error:
        raise OutputError(
            "There is no home folder to keep caches in.", hint=f"Set {VARIABLE} to a folder that can be written."
        ) from error


def default_notes() -> FileNotes:
    """Return the notes about files in ``$MESM_CACHE/files``.

    Raises:
        OutputError: the user has no home folder.
    """
    return FileNotes(cache_folder() / NOTES)


@dataclass(frozen=True, slots=True)
class FileNotes:
    """Keeps what was found out by reading a whole file, such as its hash, for as long as the file is not changed.

    A file is known by its path, size, time of change and inode. Several processes may share the folder; a note that is
    damaged or cannot be written is as good as none.

    Args:
        folder: where the notes lie, a small file each.
    """

    folder: Path

    def get(self, path: Path, what: str) -> Any:
        """Return the value that was noted, or None.

        Args:
            what: is known of the file, e.g. ``sha256``.
        """
        identity = _identity(path)
        if identity is None:
            return None
        with suppress(OSError, ValueError):
            note = json.loads(self._note(path, what).read_text(encoding="utf-8"))
            if isinstance(note, dict) and note.get("file") == identity:
                return note.get("value")
        return None

    def put(self, path: Path, what: str, value: Any, *, seen: list[Any] | None) -> None:
        """Note a JSON-able value, unless the file may have changed while it was read.

        Args:
            seen: ``identity`` of the file from before it was read.
        """
        if seen is None or identity_of(path) != seen:
            return
        content = json.dumps({"file": seen, "value": value}).encode()
        with suppress(MesmError):  # reading the file again takes longer, and is right
            write_atomically(self._note(path, what), content)

    def clear(self, *, older_than: float = 0) -> None:
        """Remove notes that were written more than ``older_than`` seconds ago."""
        for note in self.folder.glob("*.json"):
            with suppress(OSError):
                if not older_than or time.time() - note.stat().st_mtime > older_than:
                    note.unlink(missing_ok=True)

    def _note(self, path: Path, what: str) -> Path:
        name = f"{what}\0".encode() + os.fsencode(os.path.realpath(path))
        return self.folder / f"{hashlib.sha256(name).hexdigest()[:40]}.json"


def identity_of(path: Path) -> list[Any] | None:
    """Return what tells a file's content apart without reading it; None for one that was changed just now."""
    found = _identity(path)
    if found is None or time.time() - found[1] / 1e9 < SETTLED_SECONDS:
        return None
    return found


def _identity(path: Path) -> list[Any] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev]
