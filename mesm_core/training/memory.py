"""Memory of a training process: keep freed memory for reuse, and explain running out of it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mesm_core.errors import MesmError, count
from mesm_core.types import Batch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER, _STEP = 2**31 - 1, 2**28


def keep_freed_memory() -> bool:
    """Make glibc allocate large blocks from its heap and keep them when freed, for the rest of the process.

    Large tensors are allocated and freed many times per step. A 32 MB tensor newly obtained from the system costs 10 ms
    of page faults, more than most operations on it.

    Returns:
        False if the C library is not glibc; nothing has changed then.
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


@contextmanager
def explained_memory(batch: Batch) -> Iterator[None]:
    """Raise an error that describes the batch if memory runs out inside the context.

    Raises:
        MesmError: memory ran out inside the context.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        video, words = batch.inputs.video, batch.inputs.words
        raise MesmError(
            f"Out of memory on a batch of {count(len(batch.queries), 'query')} about {count(len(video), 'video')} "
            f"of up to {video.shape[1]} frames, with up to {words.shape[1]} words. The last checkpoint is intact.",
            hint="Lower train.batch_size, dataset.max_gather_size (queries a group) or dataset.max_frames. On a GPU, "
            "--precision bf16 and a smaller data.device_cache_gb also need less memory.",
        ) from error
