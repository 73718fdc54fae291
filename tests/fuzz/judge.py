"""Whether a command did what every command promises, whatever is wrong with its input."""

from __future__ import annotations

import json
import re
import signal
from fnmatch import fnmatch
from itertools import pairwise, takewhile

from tests.fuzz.commands import Command, value_options
from tests.fuzz.worker import Outcome

FAULT = "fault in mesm"
TRACEBACK = "Traceback (most recent call last)"
IGNORED = re.compile(r"Exception ignored in|Segmentation fault|core dumped|terminate called")
PARTIAL = ("videos were left out", "videos have no features", "The others are done.")
"""A conversion, an extraction or a search in several videos says so, and keeps what it has of the others."""
TRAINED = ("*/metrics.jsonl", "*/last.pt", "*/not-finite*.json")


def failures(command: Command, outcome: Outcome, *, sound: bool = False) -> list[str]:
    """Return what is wrong with an outcome, in words that are the same for the same cause; empty if nothing."""
    found = [*_ended(outcome), *_left(command, outcome)]
    if sound and command.works and outcome.code != 0:
        found.append(f"a sound input ends with exit code {outcome.code}")
    if outcome.code == 0 and "--json" in command.words and _wants_json(outcome.words) and _odd_json(outcome.out):
        found.append("--json prints what is not JSON")
    return found


def _wants_json(words: list[str]) -> bool:
    options = list(takewhile(lambda word: word != "--", words))
    taken = value_options(tuple(options[:2]))
    flags = [word for before, word in pairwise(options) if before not in taken]
    return "--json" in flags and "--help" not in options


def _ended(outcome: Outcome) -> list[str]:
    where = f"{outcome.raised} at {outcome.place}" if outcome.raised else outcome.place
    if outcome.code in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL):
        return [f"never ends: {outcome.place or 'unknown place'}"]
    if outcome.code < 0:
        return [f"crash by {signal.Signals(-outcome.code).name}: {where}"]
    if outcome.code not in (0, 2):
        return [f"exit code {outcome.code}: {where}"]
    if FAULT in outcome.err:
        return [f"called a fault in mesm: {where}"]
    if TRACEBACK in outcome.err + outcome.out:
        return [f"traceback, exit code {outcome.code}: {where}"]
    if IGNORED.search(outcome.err):
        return [f"noise of an interpreter: {outcome.err.strip().splitlines()[-1][:100]}"]
    if outcome.code == 2 and not outcome.err.strip():
        return [f"exit code 2 without a message: {where}"]
    return []


def _left(command: Command, outcome: Outcome) -> list[str]:
    """Return what was lost or left behind: inputs never change, and an error leaves nothing new."""
    before, after = outcome.before, outcome.after
    name = command.name
    partial = any(words in outcome.err for words in PARTIAL)
    allowed = [*command.rewrites, *(outcome.changes if outcome.code == 0 or partial else ())]
    lost = [path for path in before if after.get(path) != before[path] and not _any(path, allowed)]
    found = [f"{name}: an input is changed (exit code {outcome.code})"] if lost else []
    new = [path for path in after if path not in before]
    stub = not any(_any(path, TRAINED) for path in new)
    if outcome.code != 0 and new and not partial:
        kept = [path for path in new if _any(path, command.keeps) or (not stub and path.startswith("runs"))]
        left = sorted(set(new) - set(kept))
        found += [f"{name}: an error leaves {_kind(left)}"] if left else []
    parts = [path for path in new if ".part" in path or ".tmp" in path]
    return found + ([f"{name}: a temporary file is left"] if parts and outcome.code == 0 else [])


def _kind(paths: list[str]) -> str:
    return "a temporary file" if any(".part" in path for path in paths) else f"{paths[0][:40]!r}"


def _any(path: str, patterns: tuple[str, ...] | list[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _odd_json(text: str) -> bool:
    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return True
    return False
