"""The help of every command fits a terminal of 80 columns, and its examples are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from mesm_cli.app import app

WIDTH = 80 - 2
"""Characters of a help text in a terminal of 80 columns."""


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(words), command
    for name, child in (children or {}).items():
        yield from commands(child, (*words, name))


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_valid_commands_on_single_lines(name: str) -> None:
    paragraphs = COMMANDS[name].help.split("\n\n")
    start = next((number for number, text in enumerate(paragraphs) if re.match(r"Examples?:", text)), None)
    if start is None:
        assert not any(text.startswith("mesm ") for text in paragraphs)
        return
    assert paragraphs[start] in {"Example:", "Examples:"}
    assert len(paragraphs) > start + 1
    for line in paragraphs[start + 1 :]:
        assert len(line) <= WIDTH
        words = shlex.split(line)
        assert words[0] == "mesm"
        path = next(path for path in (" ".join(words[1:3]), words[1], f"{words[1]} list") if path in COMMANDS)
        command = COMMANDS[path]
        known = {spelling for param in command.params for spelling in param.opts}
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_help_paragraphs_have_no_line_breaks(name: str) -> None:
    paragraphs = COMMANDS[name].help.split("\n\n")
    assert all("\n" not in paragraph for paragraph in paragraphs)
    assert paragraphs[0].endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_sentence_of_help(name: str) -> None:
    for param in COMMANDS[name].params:
        if param.name not in {"help", "install_completion", "show_completion"}:
            assert param.help, param.name
            assert param.help.endswith("."), param.help
