"""The fuzzer over the command line, and that it sees what it looks for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.commands import COMMANDS, Command, app_commands, schedule
from tests.fuzz.judge import failures
from tests.fuzz.worker import Outcome

ROOT = Path(__file__).resolve().parents[2]


def fuzz(*words: object) -> None:
    """Run the fuzzer in a process of its own: it forks, which a process with threads should not."""
    command = [sys.executable, "-m", "tests.fuzz", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_is_there() -> None:
    used = {tuple(command.words[:length]) for command in COMMANDS for length in (1, 2)}
    assert app_commands() <= used
    assert set(schedule()) == set(COMMANDS)


def test_three_hundred_inputs() -> None:
    fuzz("--count", 240)  # and every line of the table as it is: more than 300 in all


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300, 5300, 1000))
def test_thousands_of_inputs(seed: int) -> None:
    fuzz("--count", 1000, "--seed", seed)


def outcome(code: int = 2, **changes: object) -> Outcome:
    usual: dict[str, object] = {
        "words": ["export"], "done": [], "changes": set(), "code": code, "out": "", "err": "Error: no.",
        "raised": "", "place": "", "before": {"a": "file"}, "after": {"a": "file"},
    }  # fmt: skip
    return Outcome(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (outcome(), ""),
        (outcome(0, err="", after={"a": "file", "b": "file"}), ""),
        (outcome(1, raised="KeyError", place="x.py:f"), "exit code 1: KeyError at x.py:f"),
        (outcome(-signal.SIGSEGV), "crash by SIGSEGV"),
        (outcome(-signal.SIGALRM), "never ends"),
        (outcome(err="Traceback (most recent call last)"), "traceback"),
        (outcome(err="This is a fault in mesm"), "a fault in mesm"),
        (outcome(0, err="Exception ignored in: x"), "noise of an interpreter"),
        (outcome(err=""), "without a message"),
        (outcome(after={"a": "file", "b": "file"}), "an error leaves 'b'"),
        (outcome(after={"a": "other"}), "an input is changed"),
        (outcome(0, after={}), "an input is changed"),
        (outcome(0, after={"a": "file", ".b.part": "file"}), "a temporary file is left"),
    ],
)
def test_what_counts_as_a_failure(given: Outcome, expected: str) -> None:
    found = failures(Command("export best.pt out"), given)
    assert bool(found) == bool(expected)
    assert expected in " ".join(found)


def test_json_that_is_none_counts_as_a_failure() -> None:
    command = Command("score a b --json")
    assert failures(command, outcome(0, words=command.words, out='{"a": NaN}')) == ["--json prints what is not JSON"]
    assert failures(command, outcome(0, words=command.words, out='{"a": null}')) == []
    assert failures(command, outcome(0, out="a table")) == []  # the option was taken away
    doctor = Command("doctor --data-dir data --json")
    assert failures(doctor, outcome(0, words=["doctor", "--data-dir", "--json"], out="a table")) == []  # a folder
