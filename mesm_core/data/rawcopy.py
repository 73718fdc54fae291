"""Copies the numbers of a .npy file directly into an HDF5 file, and checks that they are finite."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from mesm_core.data.npy_files import KEPT_DTYPES, Header, all_finite, parsed, read_header
from mesm_core.errors import FeatureError

CHUNK_BYTES = 512 * 1024
FIRST_READ = 128 * 1024
"""Bytes read with the header. Opening a file twice takes longer than reading a small file completely."""
_kept = threading.local()


@dataclass(frozen=True)
class RawArray:
    """Location of the numbers in a .npy file: ``shape`` (frames, dim), ``dtype``, and the ``offset`` in bytes.

    ``content``: the whole file if it is small, else None; a view of a buffer that this thread's next call reuses.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[np.generic]
    offset: int
    content: memoryview | None = None

    @property
    def nbytes(self) -> int:
        """Size of the numbers in bytes."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def raw_array(path: Path) -> RawArray | None:
    """Return the location of the numbers in a .npy file, or None if they cannot be copied unchanged.

    Copying requires a complete (frames, dim) array in C order, of float16 or float32 in native byte order.
    """
    if path.suffix != ".npy":
        return None
    try:
        header, size, content = parsed(lambda: _header(path))
    except Exception:  # NumPy's header parser raises anything; ``read_array`` says what is wrong
        return None
    shape, dtype = header.shape, header.dtype
    plain = len(shape) == 2 and 0 not in shape and not header.fortran and dtype in KEPT_DTYPES and dtype.isnative
    if not plain or size < header.offset + header.nbytes:
        return None
    return RawArray(path, (shape[0], shape[1]), dtype, header.offset, content)


def _header(path: Path) -> tuple[Header, int, memoryview | None]:
    """Return the header, the file's size, and its content if it is small."""
    head = memoryview(_buffer())[:FIRST_READ]
    with _opened(path) as source:
        head = head[: os.readv(source, [head])]
        size = os.fstat(source).st_size
    begin = 10 if bytes(head[6:7]) == b"\x01" else 12
    header = _parsed(bytes(head[: begin + int.from_bytes(head[8:begin], "little")]))
    return header, size, head if len(head) == size else None


@lru_cache(maxsize=256)
def _parsed(head: bytes) -> Header:
    """Return a parsed header; cached, since NumPy parses slowly and videos of the same length share a header."""
    return read_header(BytesIO(head))


def allocate(file: h5py.File, name: str, raw: RawArray) -> tuple[h5py.h5d.DatasetID, int]:
    """Create a dataset without writing it; return it with its byte offset in the file."""
    layout, links = _unwritten()
    kind, space = _kind(raw.dtype), _space(raw.shape)
    node = h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=layout, lcpl=links)
    return node, int(node.get_offset())


@cache
def _kind(dtype: np.dtype[np.generic]) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(dtype, logical=True)


@lru_cache(maxsize=256)
def _space(shape: tuple[int, int]) -> h5py.h5s.SpaceID:
    return h5py.h5s.create_simple(shape)


@cache
def _unwritten() -> tuple[h5py.h5p.PropDCID, h5py.h5p.PropLCID]:
    """Return the properties of a contiguous dataset that is not filled on creation and has a UTF-8 name."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_char_encoding(h5py.h5t.CSET_UTF8)
    return layout, links


def copy_numbers(raw: RawArray, target: int, place: int) -> None:
    """Copy the numbers to byte ``place`` of the open file descriptor ``target``.

    Raises:
        FeatureError: the numbers include NaN or infinity, or the file ends too early.
    """
    if raw.content is not None:
        _write_checked(raw.content[raw.offset : raw.offset + raw.nbytes], raw.dtype, target, place)
        return
    view = memoryview(_buffer())
    done = 0
    with _opened(raw.path) as source:
        while done < raw.nbytes:
            count = os.preadv(source, [view[: min(CHUNK_BYTES, raw.nbytes - done)]], raw.offset + done)
            if not count:
                raise FeatureError("it cannot be read (it ends too early)")
            # A read may end inside a number; the next read starts at that number again.
            count -= count % raw.dtype.itemsize
            _write_checked(view[:count], raw.dtype, target, place + done)
            done += count


def _write_checked(numbers: memoryview, dtype: np.dtype[np.generic], target: int, place: int) -> None:
    if not all_finite(np.frombuffer(numbers, dtype)):
        raise FeatureError("it holds NaN or infinity")
    written = 0
    while written < len(numbers):
        written += os.pwrite(target, numbers[written:], place + written)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file and yield its descriptor; a Python file object makes three times as many system calls."""
    source = os.open(path, os.O_RDONLY)
    try:
        yield source
    finally:
        os.close(source)


def _buffer() -> bytearray:
    """Return this thread's buffer; it is reused, since new memory costs as much as reading the file."""
    if not hasattr(_kept, "buffer"):
        _kept.buffer = bytearray(CHUNK_BYTES)
    buffer: bytearray = _kept.buffer
    return buffer
