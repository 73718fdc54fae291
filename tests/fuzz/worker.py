"""Run a command in a forked process, with bounded time and memory."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NoReturn

import typer.main

import mesm_cli.app
import mesm_core
from mesm_cli.errors import guard
from tests.fuzz.commands import Command
from tests.fuzz.mutations import prepare
from tests.fuzz.snapshot import Snapshot, snapshot

CPU_SECONDS = 10
WALL_SECONDS = 120
MEMORY = 3 << 29
LARGEST_FILE = 512 << 20
NOBODY = 65534
OURS = re.compile(r"mesm_(?:core|cli)/.*\.py")
STOPPED = re.compile(r'mesm_(?:core|cli)/[^"]*", line \d+ in \S+')
LAZY = (
    "ctypes.util", "encodings.ascii", "encodings.cp437", "encodings.idna", "encodings.latin_1",
    "encodings.unicode_escape", "encodings.utf_16", "encodings.utf_32", "encodings.utf_8_sig", "getpass",
    "importlib.readers", "jinja2", "matplotlib.font_manager", "nltk.tokenize.destructive", "pydantic.type_adapter",
    "rich._emoji_codes", "scipy.optimize", "termios", "torch._dynamo", "typer.rich_utils", "webbrowser",
)  # fmt: skip
"""What libraries import late: it takes time, and nobody may not be able to read it."""


@dataclass(frozen=True)
class Outcome:
    """What a command did: ``code`` is negative where a signal ended it; ``place`` is where it raised, or hung."""

    words: list[str]
    done: list[str]
    changes: set[str]
    code: int
    out: str
    err: str
    raised: str
    place: str
    before: Snapshot
    after: Snapshot


class Workers:
    """Forks a process for each command, from one that has imported everything.

    Args:
        inputs: what ``write_inputs`` wrote; scratch: a folder to work in.
    """

    def __init__(self, inputs: Path, scratch: Path) -> None:
        self._inputs = inputs
        for path in inputs.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.work_in(scratch)
        import_everything()
        self._app = typer.main.get_command(mesm_cli.app.app)  # what calling the app makes first
        gc.collect()
        gc.freeze()  # what is there already stays shared, and is not looked at again

    def work_in(self, scratch: Path) -> None:
        """Use another folder from here on: a process a folder."""
        self.scratch = scratch
        self._home = scratch / "home"
        self._home.mkdir(parents=True)
        for path in (scratch, self._home):
            _hand_over(path)
        os.environ |= {"MESM_CACHE": str(self._home / "cache"), "HOME": str(self._home), "COLUMNS": "100"}
        os.environ |= {"MPLCONFIGDIR": str(self._home / "matplotlib"), "NO_COLOR": "1"}
        os.environ["HF_HUB_OFFLINE"] = "1"  # no weights are fetched
        os.environ.pop("MESM_DATA", None)

    def run(self, command: Command, rng: Random, *, sound: bool = False) -> Outcome:
        """Run a command on inputs with something wrong."""
        folder = self.scratch / "case"
        folder.mkdir()
        _hand_over(folder)
        notes = {name: self._home / name for name in ("out", "err", "fault", "note")}
        handles = {name: os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666) for name, path in notes.items()}
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            self._child(command, rng, folder, handles, sound)
        _, status = os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it started
        texts = {name: path.read_bytes().decode(errors="replace") for name, path in notes.items()}
        for handle in handles.values():
            os.close(handle)
        outcome = _outcome(texts, os.waitstatus_to_exitcode(status), folder)
        _remove(folder)
        return outcome

    def _child(self, command: Command, rng: Random, folder: Path, handles: dict[str, int], sound: bool) -> NoReturn:
        """Become the command; never return."""
        code = 99
        try:
            os.setsid()
            _without_privileges()
            os.chdir(folder)
            os.dup2(handles["out"], 1)
            os.dup2(handles["err"], 2)
            case = prepare(rng, command, self._inputs, folder, sound=sound)
            stdin = folder / command.stdin if command.stdin else Path(os.devnull)
            os.dup2(os.open(stdin if os.access(stdin, os.R_OK) else os.devnull, os.O_RDONLY), 0)
            note = {"words": case.words, "done": case.done, "changes": sorted(case.changes), "before": snapshot(folder)}
            os.write(handles["note"], json.dumps(note).encode() + b"\n")
            _limit(handles["fault"])
            sys.argv = ["mesm", *case.words]
            code = guard(_noting(self._app, handles["note"]))
            gc.collect()  # what is left would be closed when the program ends
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def _outcome(texts: dict[str, str], code: int, folder: Path) -> Outcome:
    noted = [json.loads(line) for line in texts["note"].splitlines()]
    if not noted:
        raise RuntimeError(f"an input could not be made:\n{texts['err']}")
    raised = noted[1] if len(noted) > 1 else {"type": "", "place": ""}
    fault = next((match[0] for line in texts["fault"].splitlines() if (match := STOPPED.search(line))), "")
    return Outcome(
        noted[0]["words"],
        noted[0]["done"],
        set(noted[0]["changes"]),
        code,
        texts["out"],
        texts["err"],
        raised["type"],
        raised["place"] or fault,
        noted[0]["before"],
        snapshot(folder),
    )


def _noting(run: Callable[[], object], note: int) -> Callable[[], object]:
    def noted() -> object:
        try:
            return run()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            os.write(note, json.dumps({"type": type(error).__name__, "place": _place(error)}).encode() + b"\n")
            raise

    return noted


def _place(error: BaseException) -> str:
    """Return the last function of ours that an exception went through, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [(match[0], frame) for frame in frames if (match := OURS.search(frame.filename))]
    if not ours:
        return f"{Path(frames[-1].filename).name}:{frames[-1].name}"
    name, frame = ours[-1]
    inner = "" if frame is frames[-1] else f" (in {Path(frames[-1].filename).name}: {frames[-1].name})"
    return f"{name}:{frame.name}{inner}"


def _limit(fault: int) -> None:
    """Bound time, memory and the size of files; write to ``fault`` where a process was that crashed or never ended."""
    faulthandler.enable(file=fault)
    faulthandler.register(signal.SIGXCPU, file=fault, chain=True)
    faulthandler.dump_traceback_later(WALL_SECONDS - 5, file=fault)
    signal.alarm(WALL_SECONDS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def import_everything() -> None:
    """Import what commands import when they need it, so that no worker has to."""
    names = [
        module.name
        for package in (mesm_core, mesm_cli)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    for name in (*names, *LAZY):
        importlib.import_module(name)


def _without_privileges() -> None:
    """Go on as nobody where we are root: a command that writes where it should not cannot harm the machine."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _hand_over(path: Path) -> None:
    path.chmod(0o755)
    if os.getuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def _remove(folder: Path) -> None:
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    shutil.rmtree(folder)
