"""Shards of the videos that are extracted separately, for example by the tasks of a Slurm array."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mesm_core.errors import ConfigError

TASK, FIRST, LAST, STEP = (f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP"))
MOST_SHARDS = 100_000

Shard = tuple[int, int]
"""(i, n): the i-th of n shards, numbered from 1."""


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """Return the shard that ``I/N``, ``slurm/N`` or ``slurm`` stands for.

    ``slurm/N`` takes I from SLURM_ARRAY_TASK_ID of an array numbered 1-N, so single tasks can be run again. ``slurm``
    takes I and N from the array's first and last number, for any numbering.

    Raises:
        ConfigError: the text is none of these, I is not in 1…N, or there is no Slurm array.

    >>> parse_shard("2/8", {}), parse_shard("slurm/8", {"SLURM_ARRAY_TASK_ID": "3"})
    ((2, 8), (3, 8))
    """
    if text == "slurm":
        task, first, last = (_number(environment, name) for name in (TASK, FIRST, LAST))
        step = _number(environment, STEP) if STEP in environment else 1
        return _checked((task - first) // step + 1, (last - first) // step + 1, text)
    match = re.fullmatch(r"(slurm|\d{1,9})/(\d{1,9})", text)
    if match is None:
        raise ConfigError(f"--shard {text!r} is not I/N, slurm/N or slurm.", hint="For example --shard 2/8.")
    number = _number(environment, TASK) if match[1] == "slurm" else int(match[1])
    return _checked(number, int(match[2]), text)


def shard_text(shard: Shard) -> str:
    """Return a shard as part of a file name that sorts in numerical order.

    >>> shard_text((2, 16))
    '02-of-16'
    """
    number, count = shard
    return f"{number:0{len(str(count))}}-of-{count}"


def _checked(number: int, count: int, text: str) -> Shard:
    if not 1 <= number <= count <= MOST_SHARDS:
        raise ConfigError(
            f"--shard {text}: there is no shard {number} of {count}.",
            hint=f"Shards are numbered from 1 to N, at most {MOST_SHARDS}; for Slurm: --array=1-N.",
        )
    return number, count


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not re.fullmatch(r"\d{1,9}", value):
        problem = f"is {value!r}" if value else "is not set"
        raise ConfigError(f"--shard slurm: {name} {problem}.", hint="Run it in a job array: sbatch --array=1-N.")
    return int(value)
