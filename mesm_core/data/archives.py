"""Reads arrays from .tar, .tar.gz and .zip files in sequence, without unpacking them to disk.

Archives are not trusted: sizes in headers are checked before memory is allocated, links and other special members
are never followed, and member names are used only as names of videos.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, cast

from mesm_core.errors import FeatureError, did_you_mean, listing
from mesm_core.inputs import ALWAYS_ALLOWED, LARGEST_COMPRESSION, printable, reason
from mesm_core.places import size_text

SUFFIXES = (".npy", ".npz")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
SEPARATOR = "::"
LARGEST_MEMBER = 2**30
"""In bytes, about ten times the features of the longest film."""
LONGEST_HEADER = 2**20
"""Limit in bytes for the names and attributes of one member of a .tar."""
MOST_MEMBERS = 1_000_000
MOST_FOLDERS = 50
BLOCK = 2**20
READ_BYTES = 2**16
GZIP = b"\x1f\x8b"
_HEADER = 512


class BrokenArchiveError(FeatureError):
    """An archive that cannot be read completely."""


@dataclass(frozen=True)
class Archive:
    """An archive as a source of features.

    ``folder``: the folder to read, at any depth of the archive; empty for the whole archive.
    """

    path: Path
    folder: str = ""

    def __str__(self) -> str:
        return f"{self.path}{SEPARATOR}{self.folder}" if self.folder else str(self.path)

    def holds(self, parents: tuple[str, ...]) -> bool:
        """Return whether a member in these folders, outermost first, is in ``folder``."""
        wanted = PurePosixPath(self.folder).parts
        return any(parents[at : at + len(wanted)] == wanted for at in range(len(parents) - len(wanted) + 1))


@dataclass(frozen=True)
class Member:
    """A file read from an archive; ``consumed``: bytes of the archive read since the previous member."""

    archive: Path
    name: str
    content: bytes
    consumed: int

    def __str__(self) -> str:
        return f"{self.archive}{SEPARATOR}{self.name}"

    def open(self, mode: str = "rb") -> BytesIO:
        """Return the file, open for reading."""
        return BytesIO(self.content)


@dataclass(frozen=True)
class Entry:
    """A .npy or .npz file in an archive, before it is read.

    ``problem``: why the file cannot be read, or None; ``load``: reads the file. Call ``load`` at most once, and before
    the next entry is requested.
    """

    name: PurePosixPath
    where: str
    problem: str | None
    load: Callable[[], Member]


@dataclass(frozen=True)
class _ListedMember:
    """A member as listed by tarfile or zipfile; ``read`` returns its content and the archive bytes consumed."""

    name: str
    size: int
    problem: str | None
    read: Callable[[], tuple[bytes, int]]


def is_archive(path: Path) -> bool:
    """Return whether a file has the suffix of an archive.

    >>> is_archive(Path("features.tar.gz")), is_archive(Path("v1.npz"))
    (True, False)
    """
    return path.name.lower().endswith(ARCHIVES)


def entries(archive: Archive) -> Iterator[Entry]:
    """Yield the .npy and .npz files of an archive's folder, in archive order.

    Raises:
        BrokenArchiveError: the file is missing, not an archive, damaged, truncated, or a decompression bomb; entries
            yielded before the error are valid.
        FeatureError: the folder has no .npy or .npz files.
    """
    members, folders, any_arrays = 0, set[str](), False
    for found in _members(archive.path):
        members += 1
        if members > MOST_MEMBERS:
            raise BrokenArchiveError(f"it has more than {MOST_MEMBERS:,} files")
        name = PurePosixPath(found.name)
        # macOS keeps attributes of each file beside it, under the same name with "._" in front.
        if name.suffix not in SUFFIXES or name.name.startswith("._"):
            continue
        if not archive.holds(name.parts[:-1]):
            if len(folders) < MOST_FOLDERS:
                folders.add(str(name.parent))
            continue
        any_arrays = True
        where = printable(f"{archive.path}{SEPARATOR}{found.name}")
        yield Entry(name, where, _problem(found, name), lambda found=found: _load(archive.path, found))  # type: ignore[misc]
    if not any_arrays:
        raise _no_arrays(archive, folders)


def refuse_bomb(size: int, packed: int) -> None:
    """Raise FeatureError if ``packed`` bytes claim to decompress to ``size`` bytes, more than features ever do."""
    if size > ALWAYS_ALLOWED and size > LARGEST_COMPRESSION * max(packed, 1):
        raise FeatureError(f"it grows more than {LARGEST_COMPRESSION} times when it is decompressed")


def _no_arrays(archive: Archive, folders: set[str]) -> FeatureError:
    if not folders:
        return FeatureError(f"{archive.path} has no .npy or .npz files in it.", hint="Is it the right archive?")
    guess = did_you_mean(archive.folder, folders)
    return FeatureError(
        f"{archive.path} has no .npy or .npz files in a folder '{archive.folder}'.{guess}",
        hint=f"They are in: {listing(sorted(folders))}.",
    )


def _problem(found: _ListedMember, name: PurePosixPath) -> str | None:
    if found.problem is not None:
        return found.problem
    if name.is_absolute() or ".." in name.parts:
        return "its path leads outside the archive"
    if not 0 <= found.size <= LARGEST_MEMBER:
        return f"its header claims {found.size:,} bytes, more than any video has"
    return None


def _load(path: Path, found: _ListedMember) -> Member:
    content, consumed = found.read()
    return Member(path, found.name, content, consumed)


def _members(path: Path) -> Iterator[_ListedMember]:
    """Yield the members of an archive; its first bytes, not its name, give the format.

    Raises:
        BrokenArchiveError: as for ``entries``.
    """
    try:
        with path.open("rb", buffering=BLOCK) as file:
            magic = file.read(4)
            file.seek(0)
            if magic.startswith(b"PK"):
                yield from _zip_members(file)
            elif magic.startswith(GZIP):
                yield from _tar_members(_Forward(_Gzip(file), file))
            elif magic.lstrip().startswith(b"<"):
                raise BrokenArchiveError("it is a web page: the server sent that instead of the file")
            else:
                yield from _tar_members(_Forward(None, file))
    except FeatureError:
        raise
    except Exception as error:  # the libraries' parsers of damaged files raise anything
        raise BrokenArchiveError(f"it is damaged, cut short, or not an archive ({reason(error)})") from error


class _Gzip:
    """Streams the content of a .gz file; unlike ``gzip``, it does not search gigabytes of padding for more data."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._rest = raw, b""
        self._inflate = zlib.decompressobj(wbits=31)

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, or no bytes at the end.

        Raises:
            EOFError, zlib.error: the file is cut short or damaged.
        """
        while True:
            packed = self._rest or self._raw.read(READ_BYTES)
            if self._inflate.eof:
                if not packed.startswith(GZIP):
                    return b""
                self._inflate = zlib.decompressobj(wbits=31)
            if not packed:
                raise EOFError("it ends too early")
            content = self._inflate.decompress(packed, size)
            self._rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if content:
                return content


class _Forward:
    """A forward-only file for ``tarfile``, which limits the size of headers and of decompressed data.

    Args:
        packed: decompresses ``raw``, or None if it is not compressed; raw: the file on disk.
    """

    def __init__(self, packed: _Gzip | None, raw: IO[bytes]) -> None:
        self._packed, self._raw = packed, raw
        self._size = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        self._at = self._counted = 0
        self.header = b""

    def tell(self) -> int:
        """Return the position in the decompressed data."""
        return self._at

    def seek(self, offset: int) -> int:
        """Skip to a later position."""
        if offset < self._at:
            raise ValueError("a member points back to data that was read before")
        if self._packed is None:
            self._at = self._raw.seek(min(offset, self._size))
        while self._at < offset:
            if not self._read(min(offset - self._at, BLOCK)):
                break
        return self._at

    def read(self, size: int) -> bytes:
        """Return bytes of a member's header."""
        if not 0 <= size <= LONGEST_HEADER:
            raise ValueError(f"the header of a member claims {size:,} bytes")
        content = b""
        while len(content) < size and (block := self._read(size - len(content))):
            content += block
        if size == _HEADER:
            self.header = content
        return content

    def take(self, size: int) -> bytes:
        """Return a member's content.

        Raises:
            BrokenArchiveError: the archive ends inside the member, or is damaged.
        """
        content = bytearray()
        try:
            while len(content) < size:
                block = self._read(min(size - len(content), BLOCK))
                if not block:
                    raise EOFError("it ends too early")
                content += block
        except FeatureError:
            raise
        except Exception as error:  # zlib, gzip and the disk
            raise BrokenArchiveError(f"it is damaged or cut short ({reason(error)})") from error
        return bytes(content)

    def counted(self) -> int:
        """Return the number of bytes read from disk since the last call."""
        before, self._counted = self._counted, self._raw.tell()
        return self._counted - before

    def _read(self, size: int) -> bytes:
        content = (self._packed or self._raw).read(size)
        self._at += len(content)
        if self._packed and self._at > ALWAYS_ALLOWED and self._at > LARGEST_COMPRESSION * self._raw.tell():
            raise BrokenArchiveError(f"it grows more than {LARGEST_COMPRESSION} times when it is decompressed")
        return content


def _tar_members(file: _Forward) -> Iterator[_ListedMember]:
    with closing(tarfile.TarFile(fileobj=cast("IO[bytes]", file), mode="r")) as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # the list would grow with the archive
            if not info.isdir():
                yield _ListedMember(info.name, info.size, _tar_problem(info), lambda info=info: _read_tar(file, info))  # type: ignore[misc]
    if file.header != bytes(_HEADER):
        raise BrokenArchiveError("it is damaged or cut short (its end marker is missing)")
    # Padding follows, and the checksum of a .gz file.
    file.seek(file.tell() + LONGEST_HEADER)


def _tar_problem(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return f"it is a link to {info.linkname[:200]!r}, which is not followed"
    if not info.isreg() or info.issparse():
        return "it is not a regular file"
    return None


def _read_tar(file: _Forward, info: tarfile.TarInfo) -> tuple[bytes, int]:
    file.seek(info.offset_data)
    return file.take(info.size), file.counted()


def _zip_members(file: IO[bytes]) -> Iterator[_ListedMember]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield _ListedMember(
                    info.filename,
                    info.file_size,
                    _zip_problem(info),
                    lambda info=info: (_read_zip(archive, info), info.compress_size),  # type: ignore[misc]
                )


def _zip_problem(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "it is a link, which is not followed"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        return "it is not a regular file"
    if info.flag_bits & 1:
        return "it is encrypted: unpack the archive with its password first"
    try:
        refuse_bomb(info.file_size, info.compress_size)
    except FeatureError as error:
        return error.message
    return None


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a member's content.

    Raises:
        FeatureError: the member is damaged; other members may be readable.
    """
    try:
        with archive.open(info) as member:
            content = member.read(LARGEST_MEMBER + 1)
    except Exception as error:  # zipfile, zlib, lzma and bz2 raise anything for a damaged member
        raise FeatureError(f"it cannot be read ({reason(error)})") from error
    if len(content) != info.file_size:
        raise FeatureError(f"it has {size_text(len(content))}, not the {size_text(info.file_size)} in its header")
    return content
