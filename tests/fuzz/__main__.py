"""Fuzz the command line.

``python -m tests.fuzz SEED`` runs one input and shows all about it; ``python -m tests.fuzz --count 5000 --seed 0`` runs
every command with nothing wrong, then the inputs 0 to 4999, and lists the distinct failures, each with seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Before torch is imported: a process with a team of threads cannot be forked.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import torch

from tests.fuzz.case import run_case, sound_cases
from tests.fuzz.inputs import write_inputs
from tests.fuzz.judge import failures
from tests.fuzz.worker import Workers

torch.set_num_threads(1)

SHOWN_SEEDS = 8


def main(arguments: list[str]) -> int:
    """Run the fuzzer and return the exit code: 0 where nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("one", nargs="?", type=int, metavar="SEED", help="run this input only, and show it")
    parser.add_argument("--count", type=int, default=300, help="how many inputs")
    parser.add_argument("--seed", type=int, default=0, help="the first input")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="how many processes")
    given = parser.parse_args(arguments)
    with _workers() as workers:
        if given.one is not None:
            return _show(workers, given.one)
        return _many(workers, [*sound_cases(), *range(given.seed, given.seed + given.count)], given.jobs)


@contextmanager
def _workers() -> Iterator[Workers]:
    """Import everything, write the inputs in a process of their own, and yield what runs commands."""
    with tempfile.TemporaryDirectory(prefix="mesm-fuzz-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "inputs").mkdir()
        os.environ["MESM_CACHE"] = str(root / "cache")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                write_inputs(root / "inputs")
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit("the inputs could not be written")
        yield Workers(root / "inputs", root / "scratch")


def _many(workers: Workers, seeds: Sequence[int], jobs: int) -> int:
    found: dict[str, list[int]] = defaultdict(list)
    codes: dict[int, int] = defaultdict(int)
    began = time.monotonic()
    for number, (seed, code, wrong) in enumerate(_results(workers, seeds, jobs), start=1):
        codes[code] += 1
        for failure in wrong:
            if failure not in found:
                print(f"seed {seed}: {failure}", file=sys.stderr, flush=True)
            found[failure].append(seed)
        if sys.stderr.isatty() or number % 250 == 0 or number == len(seeds):
            took = time.monotonic() - began
            end = "\r" if sys.stderr.isatty() and number < len(seeds) else "\n"
            print(f"{number} inputs, {number / took:.1f}/s, {len(found)} distinct failures", end=end, file=sys.stderr)
    done = sum(codes.values())
    print(f"{done} inputs, seeds {seeds[0]} to {seeds[-1]}; exit codes {dict(sorted(codes.items()))}")
    for failure, where in sorted(found.items(), key=lambda item: -len(item[1])):
        more = " …" if len(where) > SHOWN_SEEDS else ""
        print(f"{len(where):5} × {failure}\n        seeds {' '.join(map(str, sorted(where)[:SHOWN_SEEDS]))}{more}")
    if found:
        print(f"reproduce one: python -m tests.fuzz {min(next(iter(found.values())))}")
    return 1 if found or done < len(seeds) else 0


def _results(workers: Workers, seeds: Sequence[int], jobs: int) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the seed, exit code and failures of every input as they come, from several processes at once."""
    reader, writer = os.pipe()
    for job in range(jobs):
        if os.fork() == 0:
            code = 1
            try:
                os.close(reader)
                workers.work_in(workers.scratch / str(job))
                for seed in seeds[job::jobs]:
                    command, outcome = run_case(workers, seed)
                    line = json.dumps(
                        [seed, outcome.code, [text[:500] for text in failures(command, outcome, sound=seed < 0)]]
                    )
                    os.write(writer, line.encode() + b"\n")  # shorter than what a pipe takes at once
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as lines:
        yield from map(json.loads, lines)
    for _ in range(jobs):
        os.wait()


def _show(workers: Workers, seed: int) -> int:
    command, outcome = run_case(workers, seed)
    print(f"$ mesm {shlex.join(outcome.words)}".encode(errors="backslashreplace").decode())
    for done in outcome.done:
        print(f"  {done}".encode(errors="backslashreplace").decode())
    print(f"exit code {outcome.code}   {outcome.raised} {outcome.place}\n--- stdout\n{outcome.out[:5000]}")
    print(f"--- stderr\n{outcome.err[:5000]}\n--- files")
    for path in sorted({*outcome.before, *outcome.after}):
        old, new = outcome.before.get(path, "nothing"), outcome.after.get(path, "nothing")
        if old != new:
            print(f"{path}: {old} -> {new}".encode(errors="backslashreplace").decode())
    wrong = failures(command, outcome, sound=seed < 0)
    print("\n".join(f"FAILURE {line}" for line in wrong) or "as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
