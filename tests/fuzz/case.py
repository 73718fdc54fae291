"""An input is one number: which command, and what is wrong."""

from __future__ import annotations

from random import Random

from tests.fuzz.commands import COMMANDS, Command, schedule
from tests.fuzz.worker import Outcome, Workers


def run_case(workers: Workers, seed: int) -> tuple[Command, Outcome]:
    """Run the input of that number: from 0 on with something wrong, below 0 one of the commands with nothing wrong.

    As many inputs in a row as the schedule has meet every command.
    """
    if seed < 0:
        return COMMANDS[seed], workers.run(COMMANDS[seed], Random(seed), sound=True)
    commands = schedule()
    command = commands[seed % len(commands)]
    return command, workers.run(command, Random(seed))


def sound_cases() -> list[int]:
    """Return the numbers of the inputs with nothing wrong."""
    return list(range(-len(COMMANDS), 0))
