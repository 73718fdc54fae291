"""Imports of commands: help needs no numerical library, and prediction only the libraries that it uses."""

from __future__ import annotations

import json
import subprocess
import sys

import typer.main

from mesm_cli.app import app
from tests.conftest import Trained

HEAVY = ("numpy", "torch", "h5py", "scipy")
UNUSED_IN_PREDICTION = (
    "scipy",
    "tensorboard",
    "matplotlib",
    "nltk",
    "sympy",
    "filelock",
    "tensorflow",
    "sklearn",
    "pandas",
)

RUN = """
import contextlib, io, json, sys
from mesm_cli.app import app
found = {}
for line in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            app(line)
        except SystemExit as done:
            assert not done.code, line
    assert "Usage" in out.getvalue() or "--help" not in line, line
    found[" ".join(line)] = sorted(set(sys.modules))
print(json.dumps(found))
"""


def modules_after(*lines: list[str]) -> dict[str, set[str]]:
    """Run command lines one after another in a fresh process; return the imported top-level modules after each."""
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(lines)], check=True, stdout=subprocess.PIPE)
    return {line: {name.partition(".")[0] for name in names} for line, names in json.loads(done.stdout).items()}


def every_command() -> list[list[str]]:
    """Return the words of every command and group of commands, with --help."""

    def walk(command: object, words: list[str]) -> list[list[str]]:
        inner = getattr(command, "commands", {})
        return [[*words, "--help"], *(line for name in inner for line in walk(inner[name], [*words, name]))]

    return walk(typer.main.get_command(app), [])


def test_no_help_imports_a_numerical_library() -> None:
    lines = every_command()
    assert len(lines) > 20
    for line, modules in modules_after(["--version"], *lines).items():
        assert not modules & set(HEAVY), line


def test_prediction_imports_only_what_it_uses(trained: Trained) -> None:
    line = ["predict", str(trained.best), "--features", str(trained.paths.features[0])]
    line += ["--video", "test-000", "The man cuts a pan.", "--json"]
    (modules,) = modules_after(line).values()
    assert "torch" in modules
    assert not modules & set(UNUSED_IN_PREDICTION)
