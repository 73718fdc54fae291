"""Pickles of plain containers and NumPy arrays, read without running code from them."""

from __future__ import annotations

import codecs
import io
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.errors import MesmError
from mesm_core.inputs import read_bytes, reason

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float32(0).__reduce__()[0]
# NumPy 1 and 2 keep these functions in modules of different names.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "Counter"): Counter,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
}


def load_arrays(path: Path, *, error: type[MesmError]) -> Any:
    """Load a pickle that contains only dict, list, tuple, Counter, numbers, strings and NumPy arrays.

    Strings of Python 2 are decoded as Latin-1.

    Args:
        error: class to raise.

    Raises:
        MesmError: of class ``error``: the file cannot be read, is damaged, or refers to other types.
    """
    try:
        return _Unpickler(path, error).load()
    except MesmError:
        raise
    except Exception as problem:  # a damaged pickle may raise anything
        raise error(f"{path} is not a readable pickle: {reason(problem)}.", hint="Is the file complete?") from problem


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: Path, error: type[MesmError]) -> None:
        super().__init__(io.BytesIO(read_bytes(path, error=error)), encoding="latin1")
        self._path, self._error = path, error

    def find_class(self, module: str, name: str) -> Any:
        """Return an admitted class or function; refuse and name any other."""
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) not in _ADMITTED:
            raise self._error(
                f"{self._path} refers to {module}.{name}, which arrays do not need: it was not loaded.",
                hint="Only dict, list and NumPy arrays are allowed. Do not trust this file.",
            )
        return _ADMITTED[module, name]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Replace ``_codecs.encode``, with which Python 3 pickles bytes for Python 2."""
    if encoding not in {"latin1", "latin-1"}:
        raise pickle.UnpicklingError(f"bytes in {encoding!r}")
    return codecs.encode(text, "latin1")
