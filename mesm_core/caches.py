"""The cache folder, and notes about large files that save reading them again."""

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
from mesm_core.inputs import reading

VARIABLE = "MESM_CACHE"
NOTES = "files"
CLIPS = "clips"
CLIPS_BYTES = 2_000_000_000
"""Limit of the cache of clips and thumbnails."""
SETTLED_SECONDS = 2.0
"""Minimum age of a file for which a later change shows in its time: file systems round times to up to 2 seconds."""


def cache_folder() -> Path:
    """Return ``$MESM_CACHE``, or ``mesm`` in the user's cache folder.

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


def clips_folder() -> Path:
    """Return the folder of the clips and thumbnails of ``mesm serve``, ``$MESM_CACHE/clips``.

    Raises:
        OutputError: the user has no home folder.
    """
    return cache_folder() / CLIPS


def default_notes() -> FileNotes:
    """Return the notes about files in ``$MESM_CACHE/files``.

    Raises:
        OutputError: the user has no home folder.
    """
    return FileNotes(cache_folder() / NOTES)


@dataclass(frozen=True, slots=True)
class FileNotes:
    """Stores values computed from whole files, such as hashes, until the files change.

    A file is identified by its path, size, modification time and inode. Several processes may share the folder. Notes
    that are damaged or cannot be written are ignored.

    Args:
        folder: folder of the notes, with one small file for each.
    """

    folder: Path

    def get(self, path: Path, what: str) -> Any:
        """Return the stored value, or None.

        Args:
            what: kind of the value, e.g. ``sha256``.
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
        """Store a JSON-compatible value, unless the file may have changed while it was read.

        Args:
            seen: ``identity_of`` the file before it was read.
        """
        if seen is None or identity_of(path) != seen:
            return
        content = json.dumps({"file": seen, "value": value}).encode()
        with suppress(MesmError):  # without the note the file is read again
            write_atomically(self._note(path, what), content)

    def content_hash(self, path: Path, *, what: str = "file") -> str:
        """Return the SHA-256 of a file's content. It is read again only if the file may have changed.

        Args:
            what: kind of file, for the message if it is missing.

        Raises:
            DataError: the file cannot be read.
        """
        noted, seen = self.get(path, "sha256"), identity_of(path)
        if isinstance(noted, str):
            return noted
        content = hash_file(path, what=what)
        self.put(path, "sha256", content, seen=seen)
        return content

    def clear(self, *, older_than: float = 0) -> None:
        """Remove notes that were written more than ``older_than`` seconds ago."""
        for note in self.folder.glob("*.json"):
            with suppress(OSError):
                if not older_than or time.time() - note.stat().st_mtime > older_than:
                    note.unlink(missing_ok=True)

    def _note(self, path: Path, what: str) -> Path:
        name = f"{what}\0".encode() + os.fsencode(os.path.realpath(path))
        return self.folder / f"{hashlib.sha256(name).hexdigest()[:40]}.json"


def hash_file(path: Path, *, what: str = "file") -> str:
    """Return the SHA-256 of a file's content.

    Args:
        what: kind of file, for the message if it is missing.

    Raises:
        DataError: the file cannot be read.
    """
    with reading(path, what=what), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity_of(path: Path) -> list[Any] | None:
    """Return values that identify the content of a file without reading it, or None if it changed just now."""
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
