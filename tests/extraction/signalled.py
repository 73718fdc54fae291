"""Runs commands in forked processes and sends each a signal once it has finished a part: ``SPEC RESULTS``.

SPEC is a JSON list of {words, out, signal, seconds}: the signal comes ``seconds`` after the first new part in ``out``,
or never where it is null. RESULTS gets a list of {code, output}. Indexes are saved after every video.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import mesm_core
from mesm_cli.app import app
from mesm_cli.entry import main as mesm
from mesm_core.search import building


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Run a command; return its exit code, or minus the signal that ended it, and what it printed."""
    out = Path(case["out"])
    before = parts(out)
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            for number in (1, 2):
                os.dup2(output.fileno(), number)
            sys.argv = ["mesm", *case["words"]]
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
            try:
                mesm()
            except SystemExit as done:
                os._exit(int(done.code or 0))
        status = None
        while case["signal"] is not None and parts(out) <= before and status is None:
            status = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            time.sleep(0.001)
        if case["signal"] is not None:
            time.sleep(case["seconds"])
            os.kill(child, case["signal"])
        _, code = os.waitpid(child, 0)
        output.seek(0)
        return {"code": os.waitstatus_to_exitcode(code), "output": output.read().decode()}


def parts(out: Path) -> int:
    """Return the number of parts in the output's work folder, or in an index."""
    return len([*out.glob("*.parts/*.npz"), *out.glob("features/*.npz")])


def main(spec: Path, results: Path) -> None:
    """Run all commands of SPEC in order."""
    assert app is not None
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(mesm_core.__path__, "mesm_core."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # once for all that are forked
    building.COMMIT_SECONDS = 0.0
    results.write_text(json.dumps([run(case) for case in json.loads(spec.read_text())]))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
