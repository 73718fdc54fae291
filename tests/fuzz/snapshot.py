"""What lies in a folder, to compare before and after."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

Snapshot = dict[str, str]
READ = 16 << 20


def snapshot(folder: Path) -> Snapshot:
    """Return for every path below ``folder`` what it is: a folder, a link and its target, or a file's hash."""
    return {str(path.relative_to(folder)): _what(path) for path in _walk(folder)}


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _what(path: Path) -> str:
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        return f"link to {path.readlink()}"
    if stat.S_ISDIR(about.st_mode):
        return "folder"
    if not stat.S_ISREG(about.st_mode):
        return "device"
    if not about.st_mode & stat.S_IRUSR:
        return f"unreadable file of {about.st_size} bytes"
    with path.open("rb") as file:
        content = file.read(READ)
    return f"file of {about.st_size} bytes, {hashlib.sha1(content).hexdigest()}"
