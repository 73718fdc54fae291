"""Eight processes open the same fresh text caches at the same instants; prints what failed, as JSON.

Run as a process of its own: ``python sharing_cache.py FOLDER TRIALS``.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

from mesm_core.text.cache import TextCache

PROCESSES = 8
AHEAD_SECONDS = 0.01
fork = multiprocessing.get_context("fork")
start = fork.Value("d", 0.0)
failures: multiprocessing.Queue[str | None] = fork.Queue()


def choose_start() -> None:
    start.value = time.monotonic() + AHEAD_SECONDS


together = fork.Barrier(PROCESSES, choose_start)


def share(folder: Path, trials: int, number: int) -> None:
    own = f"{number}".encode()
    for trial in range(trials):
        # A barrier lets processes go one after another; a clock wakes them side by side.
        together.wait(120)
        time.sleep(max(start.value - time.monotonic(), 0))
        try:
            cache = TextCache(folder / f"{trial}" / "text.sqlite")
            cache.write({own: np.full((2, 3), number, np.float16), b"common": np.ones((1, 3), np.float16)})
            found = cache.read({"own": own, "common": b"common"})
            assert found["own"].tolist() == [[number] * 3] * 2
            assert found["common"].tolist() == [[1, 1, 1]]
        except Exception as error:
            failures.put(f"trial {trial}, process {number}: {error!r}")
    failures.put(None)


def main(folder: Path, trials: int) -> None:
    workers = [fork.Process(target=share, args=(folder, trials, number)) for number in range(PROCESSES)]
    for worker in workers:
        worker.start()
    failed, ended = [], 0
    while ended < PROCESSES:
        failure = failures.get(timeout=300)
        ended += failure is None
        failed += [] if failure is None else [failure]
    for worker in workers:
        worker.join()
    for trial in range(trials):
        found = TextCache(folder / f"{trial}" / "text.sqlite").read({str(n): f"{n}".encode() for n in range(PROCESSES)})
        if len(found) != PROCESSES:
            failed.append(f"trial {trial}: {len(found)} of {PROCESSES} entries are there")
    sys.stdout.write(json.dumps(failed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
