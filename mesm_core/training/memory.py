"""Keep freed memory: large tensors are made and dropped many times a step, and pages from the system cost more."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER, _STEP = 2**31 - 1, 2**28


def keep_freed_memory() -> bool:
    """Tell glibc to take large blocks from its heap and to keep them when freed; for the process, until it ends.

    A 32 MB tensor fresh from the system costs 10 ms of page faults, more than most operations on it.

    Returns:
        False where the C library is another, and nothing was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        mallopt(key, value) for key, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _STEP))
    )
