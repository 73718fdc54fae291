"""Reading of input files: limits their size, and converts exceptions of libraries to MesmError."""

from __future__ import annotations

import gzip
import json
import re
import reprlib
import stat
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mesm_core.errors import DataError, FeatureError, MesmError

if TYPE_CHECKING:
    import h5py

LONGEST_LINK = 200
BLOCK = 2**20
COMPRESSED_BLOCK = 2**16
GZIP = 31
"""zlib's number for a gzip header and trailer."""
MOST_PADDING = 64 * 2**20
# Limits far above the needs of real files, so that no file can exhaust memory or take hours.
LONGEST_LINE = 32 * 2**20
LARGEST_TEXT = 2**30
LARGEST_COMPRESSION = 200
"""Maximum ratio of decompressed to compressed size of a .gz; text has ratios of 3 to 20."""
ALWAYS_ALLOWED = 16 * 2**20
"""Number of decompressed bytes up to which ``LARGEST_COMPRESSION`` is not checked."""
MOST_DIGITS = 40

_SURROGATE = re.compile("[\ud800-\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxtuple = 2, 4, 3, 4
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


@contextmanager
def reading(
    where: object, error: type[MesmError] = DataError, *, what: str = "file", hint: str | None = None
) -> Iterator[None]:
    """Convert any exception of a library inside the context to ``error``; a MesmError passes unchanged.

    Call only the library inside the context, so that it does not hide errors of our own code.

    Args:
        where: the file that is read, for messages.
        error: class to raise.
        what: kind of file, for the message if it is missing.
        hint: how to fix the problem.
    """
    try:
        yield
    except MesmError:
        raise
    except FileNotFoundError as missing:
        raise error(f"No {what} at {where}.", hint=hint) from missing
    except (gzip.BadGzipFile, EOFError, zlib.error) as damaged:
        kind = "gzip file" if str(where).endswith(".gz") else "file"
        raise error(f"{where} cannot be read: it is not a complete {kind} ({reason(damaged)}).", hint=hint) from damaged
    except UnicodeDecodeError as wrong:
        raise error(f"{where} is not UTF-8 text (byte {wrong.start}).", hint=hint) from wrong
    except Exception as other:  # parsers may raise any exception for damaged files
        raise error(f"{where} cannot be read: {reason(other)}.", hint=hint) from other


def reason(error: BaseException) -> str:
    """Return a short form of an exception's message, without a full stop.

    >>> reason(KeyError("w2id")), reason(MemoryError())
    ("it lacks 'w2id'", 'it needs more memory than available')
    """
    if isinstance(error, MemoryError):
        return "it needs more memory than available"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError) and error.args:
        return f"it lacks {shown(error.args[0])}"
    if isinstance(error, struct.error):
        return "it is damaged"
    message = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "") or type(error).__name__
    return str(message)[:300].rstrip(".")


def shown(value: object) -> str:
    """Return the ``repr`` of a value for a message, shortened if it is long or deeply nested.

    >>> shown([1, [2, [3, [4]]]])
    '[1, [2, [...]]]'
    """
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a very large {type(value).__name__}"


def read_bytes(path: Path, *, error: type[MesmError] = DataError, what: str = "file", hint: str | None = None) -> bytes:
    """Return the content of a file, decompressed if its name ends in ``.gz``.

    Raises:
        MesmError: of class ``error``: it is missing, damaged, or larger than ``LARGEST_TEXT``.
    """
    with reading(path, error, what=what, hint=hint):
        content = bytearray()
        for block in _blocks(path, error):
            content += block
            if len(content) > LARGEST_TEXT:
                raise error(
                    f"{path} has more than {LARGEST_TEXT >> 20} MiB of text.", hint="Check the file, or split it."
                )
        return bytes(content)


def read_text(path: Path, *, error: type[MesmError] = DataError, what: str = "file", hint: str | None = None) -> str:
    """Return the text of a UTF-8 file, plain or ``.gz``, without a byte-order mark and with ``\\n`` line ends.

    Raises:
        MesmError: of class ``error``: it is missing, damaged, not UTF-8, or larger than ``LARGEST_TEXT``.
    """
    content = read_bytes(path, error=error, what=what, hint=hint)
    with reading(path, error):
        text = content.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def split_lines(text: str) -> list[str]:
    """Return the lines of a text, split only at ``\\n``. A final ``\\n`` does not start another line.

    >>> split_lines("a\\u2028b\\nc\\n")
    ['a\\u2028b', 'c']
    """
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def text_lines(path: Path, *, what: str, error: type[MesmError] = DataError) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, plain or ``.gz``, lazily and without line ends.

    Args:
        what: kind of file, for messages.

    Raises:
        MesmError: of class ``error``: it is missing, cannot be read, is cut short, is not UTF-8, or a line is longer
            than ``LONGEST_LINE``.
    """
    for number, line in enumerate(byte_lines(path, what=what, error=error), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as wrong:
            raise error(f"{path}, line {number} is not UTF-8 text (byte {wrong.start}).") from wrong
        yield text.removesuffix("\r")


def byte_lines(
    path: Path, *, what: str, error: type[MesmError] = DataError, hint: str | None = None
) -> Iterator[bytes]:
    """Yield the lines of a file as bytes, plain or ``.gz``, lazily and without ``\\n``.

    Raises:
        MesmError: of class ``error``, as for ``text_lines``.
    """
    with reading(path, error, what=what, hint=hint):
        yield from _lines(_blocks(path, error), path, error)


def stream_lines(file: IO[bytes], path: Path, error: type[MesmError]) -> Iterator[bytes]:
    """Yield the lines of an open binary file, without ``\\n``.

    Raises:
        MesmError: of class ``error``: it is damaged, or a line is longer than ``LONGEST_LINE``.
    """
    with reading(path, error):
        yield from _lines(iter(lambda: file.read(BLOCK), b""), path, error)


def parse_json(text: str, where: object, *, error: type[MesmError] = DataError, surrogates: bool = False) -> Any:
    """Parse a JSON text.

    Args:
        where: the file, or the file and line, for messages.
        surrogates: allow lone surrogates in strings, which occur in file names that are not UTF-8.

    Raises:
        MesmError: of class ``error``: the text is not JSON, is nested too deeply, or has an integer of more than
            ``MOST_DIGITS`` digits or a lone surrogate.
    """
    try:
        value = json.loads(text, parse_int=_integer)
        if not surrogates and ("\\ud" in text or "\\uD" in text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as wrong:
        cut = wrong.pos >= len(text.rstrip()) or wrong.msg.startswith("Unterminated")
        message = f"{wrong.msg}{' (is the file cut short?)' if cut else ''}"
        if "\n" in text:
            raise error(f"{where}, line {wrong.lineno}, column {wrong.colno}: {message}.") from wrong
        raise error(f"{where}: {message} (column {wrong.colno}).") from wrong
    except UnicodeEncodeError as wrong:
        raise error(f"{where}: a string has a lone surrogate, which is not a character.") from wrong
    except (ValueError, RecursionError, MemoryError) as wrong:
        raise error(f"{where}: {reason(wrong)}.") from wrong
    return value


def read_json(
    path: Path,
    *,
    error: type[MesmError] = DataError,
    what: str = "file",
    hint: str | None = None,
    surrogates: bool = False,
) -> Any:
    """Parse a JSON file.

    Raises:
        MesmError: of class ``error``, as for ``read_text`` and ``parse_json``.
    """
    return parse_json(read_text(path, error=error, what=what, hint=hint), path, error=error, surrogates=surrogates)


def parse_toml(text: str, where: object, *, error: type[MesmError]) -> dict[str, Any]:
    """Parse a TOML text.

    Raises:
        MesmError: of class ``error``: the text is not TOML, is nested too deeply, or has a number that is too long.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError, MemoryError) as wrong:
        raise error(f"{where} is not readable TOML: {reason(wrong)}.") from wrong


def has_surrogates(text: str) -> bool:
    """Return whether a text has lone surrogates, as file names and arguments that are not UTF-8 do.

    >>> has_surrogates("caf\\udce9"), has_surrogates("café")
    (True, False)
    """
    return _SURROGATE.search(text) is not None


def printable(text: object) -> str:
    """Return a text that can be encoded as UTF-8: lone surrogates are written as ``\\\\udc..``.

    >>> printable("caf\\udce9.npy")
    'caf\\\\udce9.npy'
    """
    return str(text).encode("utf-8", "backslashreplace").decode()


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, or 0 if it does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def open_hdf5(
    path: Path, *, error: type[MesmError] = FeatureError, what: str = "feature file", kind: str = "an HDF5 file"
) -> h5py.File:
    """Return an HDF5 file, open for reading; use it as a context manager, or close it.

    Args:
        error: class to raise; what: name of the file if it is missing; kind: expected kind of file, for messages.

    Raises:
        MesmError: of class ``error``: it is missing, not HDF5, or damaged.
    """
    import h5py

    if not path.is_file():
        raise error(f"No {what} at {path}.")
    try:
        return h5py.File(path, "r")
    except Exception as wrong:  # damage raises OSError, RuntimeError, KeyError or ValueError
        problem = "it is truncated" if "truncated" in str(wrong) else f"it is not {kind}, or it is damaged"
        raise error(
            f"{path} cannot be opened: {problem} ({reason(wrong)}).", hint="Copy or write the file again."
        ) from wrong


@contextmanager
def open_zip(path: Path, *, error: type[MesmError], stored: bool = False) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive for reading.

    Args:
        stored: refuse an archive whose members have more bytes than the archive itself.

    Raises:
        MesmError: of class ``error``: the archive is missing, damaged, or refused by ``stored``.
    """
    with reading(path, error), zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
        if stored and claimed > path.stat().st_size:
            raise error(
                f"The members of {path} have {claimed:,} bytes, more than the file itself.",
                hint="Do not trust this file.",
            )
        yield archive


def link_target(path: Path) -> Path:
    """Return the target of a file that is a link stored as text, as git and zip may leave one, or else ``path``."""
    if path.is_file() and path.stat().st_size < LONGEST_LINK:
        try:
            target = path.parent / path.read_text(encoding="utf-8").strip()
            return target if target.is_file() else path
        except (OSError, ValueError):
            return path
    return path


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits, which is too long")
    return int(digits)


def _blocks(path: Path, error: type[MesmError]) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks, decompressed if its name ends in .gz."""
    with path.open("rb") as raw:
        if path.suffix != ".gz":
            yield from iter(lambda: raw.read1(BLOCK), b"")
            return
        size = 0
        for block in _decompressed(raw, path, error):
            size += len(block)
            if size > ALWAYS_ALLOWED and size > LARGEST_COMPRESSION * raw.tell():
                raise error(
                    f"{path} grows more than {LARGEST_COMPRESSION} times when it is decompressed.",
                    hint="Text compresses less than that: decompress the file and check its content.",
                )
            yield block


def _decompressed(raw: IO[bytes], path: Path, error: type[MesmError]) -> Iterator[bytes]:
    """Yield the bytes of all members of a gzip file. (GzipFile would skip zeros after a member one by one.)"""
    member, rest, padding = zlib.decompressobj(GZIP), b"", 0
    while data := rest or raw.read(COMPRESSED_BLOCK):
        rest = b""
        if member.eof:
            kept = data.lstrip(b"\0")
            padding += len(data) - len(kept)
            if padding > MOST_PADDING:
                raise error(f"{path} is followed by millions of zeros: it is not a valid gzip file.")
            if not kept:
                continue
            member, data = zlib.decompressobj(GZIP), kept
        yield member.decompress(data, BLOCK)
        rest = member.unconsumed_tail or member.unused_data
    if not member.eof:
        raise EOFError("it ends too early")


def _lines(blocks: Iterator[bytes], path: Path, error: type[MesmError]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, last = block.split(b"\n")
        if whole:
            whole[0], rest = rest + whole[0], b""
            yield from whole
        rest += last
        if len(rest) > LONGEST_LINE:
            raise error(f"{path} has a line of more than {LONGEST_LINE >> 20} MiB.", hint="Is it the right file?")
    if rest:
        yield rest
