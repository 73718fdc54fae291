"""What torchrun says about a process that it started, without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a team.

    ``world``: number of its processes on all machines, ``rank``: which one this is, from 0; ``local_world`` and
    ``local_rank``: the same among those of this machine.
    """

    world: int = 1
    rank: int = 0
    local_world: int = 1
    local_rank: int = 0


def this_process() -> Process:
    """Return what torchrun says about this process; the defaults if it was not started by torchrun."""
    if (world := _number("WORLD_SIZE", 1)) < 2:
        return Process()
    local_rank = _number("LOCAL_RANK", 0)
    return Process(world, _number("RANK", 0), max(_number("LOCAL_WORLD_SIZE", 1), local_rank + 1), local_rank)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
