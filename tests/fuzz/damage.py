"""What can be wrong with any file: its bytes, its lines, or what stands in its place."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from mesm_core.video.names import VIDEO_SUFFIXES

Mutator = Callable[[Random, Path], str]

HUGE_VIDEO = 2**27
HUGE = 2 << 30
BOMB_PART = 10 << 20


def cut(rng: Random, path: Path) -> str:
    """Keep a part of the beginning."""
    content = path.read_bytes()
    size = rng.choice([0, 1, len(content) // 2, max(len(content) - 1, 0), rng.randrange(len(content) + 1)])
    path.write_bytes(content[:size])
    return f"cut to {size} of {len(content)} bytes"


def flip(rng: Random, path: Path) -> str:
    """Change a few bytes."""
    content = bytearray(path.read_bytes())
    places = sorted(rng.randrange(len(content)) for _ in range(rng.choice([1, 1, 3, 20]))) if content else []
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"bits changed at {places}"


def overwrite_head(rng: Random, path: Path) -> str:
    """Change a byte of the first 200, where formats keep what matters."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(min(200, len(content))) if content else 0
    content[place : place + 1] = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])])
    path.write_bytes(content)
    return f"byte {place} set to {content[place]}"


def insert(rng: Random, path: Path) -> str:
    """Put bytes in between."""
    content = path.read_bytes()
    place = rng.randrange(len(content) + 1)
    added = rng.choice([b"\0", b"\xff\xfe", b"\n\n", b'"', b"{", b" ", b"\r", b"\xe2\x80\xa8", rng.randbytes(9)])
    path.write_bytes(content[:place] + added + content[place:])
    return f"{added!r} put in at {place}"


def swap(rng: Random, path: Path) -> str:
    """Exchange two blocks, or repeat or blank one."""
    content = path.read_bytes()
    size = max(len(content) // 8, 1)
    a, b = sorted(rng.randrange(max(len(content) - size, 1)) for _ in range(2))
    first, second = content[a : a + size], content[b : b + size]
    how = rng.choice(["exchanged", "repeated", "blanked"])
    if how == "exchanged":
        changed = content[:a] + second + content[a + size : b] + first + content[b + size :]
    elif how == "repeated":
        changed = content[: b + size] + first + content[b + size :]
    else:
        changed = content[:a] + bytes(len(first)) + content[a + size :]
    path.write_bytes(changed)
    return f"blocks at {a} and {b} {how}"


def noise(rng: Random, path: Path) -> str:
    """Put something else in its place."""
    size = rng.choice([0, 1, 7, 100, 5000])
    path.write_bytes(rng.randbytes(size))
    return f"{size} random bytes"


def grow(rng: Random, path: Path) -> str:
    """Add a hole of 2 GB at the end, which training hashes; to a video a smaller one: FFmpeg looks through it."""
    size = HUGE_VIDEO if path.suffix in VIDEO_SUFFIXES else HUGE
    os.truncate(path, size)
    return f"a hole of {size >> 20} MB at the end"


def byte_order_mark(rng: Random, path: Path) -> str:
    """Put a byte-order mark before everything, or change the encoding."""
    content = path.read_bytes()
    how = rng.choice(["utf-8-sig", "utf-16", "latin-1"])
    text = content.decode("utf-8", errors="replace")
    path.write_bytes(text.encode(how, errors="replace"))
    return f"encoded as {how}"


def no_file(rng: Random, path: Path) -> str:
    """Put something that is not a file in its place."""
    how = rng.choice(["missing", "folder", "loop", "dangling link", "link to a device", "unreadable", "link to itself"])
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(f"{path.name}.loop")
        path.with_name(f"{path.name}.loop").symlink_to(path.name)
    elif how == "dangling link":
        path.symlink_to("nowhere")
    elif how == "link to a device":
        path.symlink_to(rng.choice(["/dev/null", "/dev/full"]))
    elif how == "unreadable":
        path.write_bytes(content)
        path.chmod(0)
    elif how == "link to itself":
        real = path.with_name(f"real{path.suffix}")
        real.write_bytes(content)
        path.symlink_to(real.name)
    return how


def odd_name(rng: Random, path: Path) -> str:
    """Add a file of an odd name beside it, with the same content."""
    name = rng.choice([b"\xff\xfe", "ü\u200b".encode(), b"a b\n", b"-x", b"[x]", b"..x", b"\xed\xa0\x80", b"%s{}"])
    other = path.with_name(os.fsdecode(name) + path.suffix)
    shutil.copyfile(path, other)
    return f"beside it a copy named {other.name!r}"


def renamed(rng: Random, path: Path) -> str:
    """Swap it with a file of another kind, or of the same: the content does not fit the name."""
    others = sorted(p for p in path.parent.parent.rglob("*") if p.is_file() and not p.is_symlink() and p != path)
    if not others:
        return noise(rng, path)
    other = rng.choice(others)
    path.write_bytes(other.read_bytes())
    return f"the content of {other.name}"


def bad_lines(rng: Random, path: Path) -> str:
    """Change a line of a text."""
    lines = path.read_bytes().split(b"\n")
    number = rng.randrange(len(lines))
    line = lines[number]
    fields = line.split(b" ")
    place = rng.randrange(len(fields))
    how = rng.choice(list(LINES))
    lines[number] = LINES[how](line, fields, place)
    path.write_bytes(b"\n".join(lines))
    return f"line {number + 1}: {how}"


def _with(fields: list[bytes], place: int, *values: bytes) -> bytes:
    return b" ".join([*fields[:place], *values, *fields[place + 1 :]])


LINES: dict[str, Callable[[bytes, list[bytes], int], bytes]] = {
    "emptied": lambda line, fields, place: b"",
    "blanks": lambda line, fields, place: b" \t ",
    "repeated": lambda line, fields, place: line + b"\n" + line,
    "a field less": lambda line, fields, place: _with(fields, place),
    "a field more": lambda line, fields, place: _with(fields, place, fields[place], b"7"),
    "a field is nan": lambda line, fields, place: _with(fields, place, b"nan"),
    "a field is inf": lambda line, fields, place: _with(fields, place, b"inf"),
    "a field is negative": lambda line, fields, place: _with(fields, place, b"-5"),
    "a field is 400 digits": lambda line, fields, place: _with(fields, place, b"9" * 400),
    "a field is 5000 digits": lambda line, fields, place: _with(fields, place, b"9" * 5000),
    "a field is 1e400": lambda line, fields, place: _with(fields, place, b"1e400"),
    "a field is a superscript": lambda line, fields, place: _with(fields, place, "²".encode()),
    "a field is Arabic digits": lambda line, fields, place: _with(fields, place, "٣".encode()),
    "a field is 1_0": lambda line, fields, place: _with(fields, place, b"1_0"),
    "NUL": lambda line, fields, place: line + b"\0",
    "not UTF-8": lambda line, fields, place: line + b"\xff\xc3",
    "an encoded surrogate": lambda line, fields, place: line + b"\xed\xa0\x80",
    "carriage return": lambda line, fields, place: line + b"\r",
    "U+2028": lambda line, fields, place: line + "\u2028x".encode(),
    "very long": lambda line, fields, place: line + b" x" * 200_000,
    "commas and quotes": lambda line, fields, place: b'"' + line.replace(b",", b'",,"') + b"\n,",
    "'##' gone": lambda line, fields, place: line.replace(b"##", b"#"),
}


def bad_gzip(rng: Random, path: Path) -> str:
    """Change a gzip file's content, or pack gigabytes into little."""
    how = rng.choice(["not packed", "packed twice", "garbage after it", "gigabytes of NULs", "gigabytes of lines"])
    content = path.read_bytes()
    plain = gzip.decompress(content)
    if how == "not packed":
        path.write_bytes(plain)
    elif how == "packed twice":
        path.write_bytes(gzip.compress(content))
    elif how == "garbage after it":
        path.write_bytes(content + b"garbage")
    else:
        part = gzip.compress((b"\0" if how == "gigabytes of NULs" else b" \n" * 50) * (BOMB_PART // 100))
        path.write_bytes(content + part * (HUGE // BOMB_PART))
    return how


def bad_gzip_line(rng: Random, path: Path) -> str:
    """Change a line of a packed text."""
    path.write_bytes(gzip.decompress(path.read_bytes()))
    done = bad_lines(rng, path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    return done


ANY: tuple[Mutator, ...] = (cut, flip, overwrite_head, insert, swap, noise, renamed, odd_name, no_file, no_file, grow)
"""For every kind of file."""

TEXT: tuple[Mutator, ...] = (bad_lines, bad_lines, bad_lines, byte_order_mark)
"""For texts of lines and fields."""
