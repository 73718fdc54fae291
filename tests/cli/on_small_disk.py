"""Runs commands on a small disk, each in its own process, and writes their results: ``FOLDER SPEC RESULTS``.

FOLDER is the disk's root; SPEC a JSON list of {name, words, room}; ``room`` is how many bytes are left free.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import tempfile
from pathlib import Path

import torch
import torch.utils.tensorboard

import mesm_core
from mesm_cli.app import app
from mesm_cli.errors import guard

FILLER = "filler"


def fill(root: Path, room: int) -> None:
    """Fill the disk up to ``room`` bytes, in whole pages."""
    with (root / FILLER).open("wb", buffering=0) as file:
        free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
        os.posix_fallocate(file.fileno(), 0, max(free - room, 1))


def listed(root: Path) -> list[str]:
    """Return the names of all files and folders below a folder."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def run(words: list[str], root: Path) -> tuple[int, str]:
    """Run a command in a forked process; return its exit code, or minus the signal that ended it, and its output."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.chdir(root)
            for number in (1, 2):
                os.dup2(output.fileno(), number)
            sys.argv = ["mesm", *words]
            code = guard(app)
            sys.stdout.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode()


def main(root: Path, spec: Path, results: Path) -> None:
    """Run every command of SPEC on a disk with only a filler file."""
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(mesm_core.__path__, "mesm_core."):
        importlib.import_module(module.name)  # once for all that are forked
    ended = {}
    for case in json.loads(spec.read_text()):
        fill(root, case["room"])
        code, output = run(case["words"], root)
        left = [name for name in listed(root) if name != FILLER]
        ended[case["name"]] = {"code": code, "output": output, "left": left}
        for name in reversed(left):
            (root / name).rmdir() if (root / name).is_dir() else (root / name).unlink()
        (root / FILLER).unlink()
    results.write_text(json.dumps(ended))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
