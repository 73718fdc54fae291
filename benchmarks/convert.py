"""Compare the time of `mesm prepare npy2hdf5` with `cp`, alternately, on files in the page cache.

    python benchmarks/convert.py FOLDER [--published npy2hdf5.py] [--runs 7] [--keep]

FOLDER receives three sets of generated features (7.5 GB with room for the outputs). It should be on the disk to
measure. `--published` names the published script (data/npy2hdf5.py of github.com/lntzm/MESM). Its function `npy2hdf5`
is called.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SETS = {"1500x1MB": (1500, 244), "10000x50KB": (10_000, 12), "10x200MB": (10, 48_828)}  # files, frames of 1,024 floats
PUBLISHED = "import runpy, sys; runpy.run_path(sys.argv[1])['npy2hdf5'](sys.argv[2] + '/*.npy', sys.argv[3])"


def make(folder: Path, files: int, frames: int) -> None:
    """Write ``files`` arrays (frames, 1024) float32 to ``folder``, unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((frames, 1024), np.float32)
    for index in range(files):
        path = folder / f"video_{index:05}.npy"
        if not path.exists():
            np.save(path, numbers)


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command and return its wall time and CPU time in seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the median, fastest and slowest wall time and the median CPU time of each command and set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--keep", action="store_true", help="keep the generated features for the next run")
    args = parser.parse_args()
    out = args.folder / "out"
    for name in args.sets:
        files, frames = SETS[name]
        source = args.folder / name
        make(source, files, frames)
        commands = {
            "cp -r": ["cp", "-r", str(source), str(out)],
            "mesm": [sys.executable, "-m", "mesm_cli.app", "prepare", "npy2hdf5", str(source), str(out)],
        }
        if args.published:
            commands["published"] = [sys.executable, "-c", PUBLISHED, str(args.published), str(source), str(out)]
        times: dict[str, list[tuple[float, float]]] = {command: [] for command in commands}
        for run in range(args.runs + 1):
            for command, line in commands.items():
                os.sync()
                took = timed(line)
                shutil.rmtree(out) if out.is_dir() else out.unlink()
                if run:  # the first fills the page cache
                    times[command].append(took)
        print(f"{name}, {args.runs} alternating runs, load {os.getloadavg()[0]:.1f}")
        for command, taken in times.items():
            walls = sorted(wall for wall, _ in taken)
            print(
                f"  {command:<10} {statistics.median(walls):6.2f} s ({walls[0]:.2f} to {walls[-1]:.2f}), "
                f"CPU {statistics.median(cpu for _, cpu in taken):6.2f} s"
            )
        if not args.keep:
            shutil.rmtree(source)


if __name__ == "__main__":
    main()
