"""Ctrl-C at any time ends a command with one line and exit code 130. Settings of OpenMP and the garbage collector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Python imports this at its start. The signal comes at a given moment, not after a given time.
START = """
import atexit, os, signal, sys, weakref

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Kept:
    pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        {moment}
        return None

if {module!r}:
    sys.meta_path.insert(0, Finder())
else:
    {moment}
"""
PLAIN = "interrupt()"
# What C code does with an exception in the middle of an import.
CONVERTED = """
        try:
            interrupt()
            for _ in range(1000):
                pass
        except BaseException as error:
            raise ImportError("initialization failed") from error
"""
# Python can only print an exception of a callback; the wait is for the interrupt to come again.
SWALLOWED = """
        kept = Kept()
        callback = weakref.ref(kept, lambda _: interrupt())
        del kept
        import time
        time.sleep(30)
"""
WAYS = (["-m", "mesm_cli.app"], ["-m", "mesm_cli"], ["-c", "from mesm_cli.entry import main; main()"])
SHOW = ("config", "show", "--dataset", "tacos")
BENCH = ("bench", "--steps", "1", "--device", "nowhere")
QUIET = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def run(
    folder: Path, way: list[str], *words: str, module: str = "", moment: str = "pass", **environment: str
) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(START.format(module=module, moment=moment), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name not in QUIET}
    paths = os.pathsep.join([str(folder), str(Path(__file__).resolve().parents[2])])
    return subprocess.run(
        [sys.executable, *way, *words],
        env=kept | {"PYTHONPATH": paths} | environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("way", "module"),
    [(WAYS[0], "typer"), (WAYS[1], "typer"), (WAYS[2], "typer"), (WAYS[0], "rich.console"), (WAYS[0], "tomllib")],
    ids=["app", "package", "script", "later", "in the command"],
)
def test_interrupted_while_importing(tmp_path: Path, way: list[str], module: str) -> None:
    done = run(tmp_path, way, *SHOW, module=module, moment=PLAIN)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize(
    ("module", "moment"),
    [("torch", PLAIN), ("torch", CONVERTED), ("torch", SWALLOWED), ("torch.nn", PLAIN), ("h5py", CONVERTED)],
    ids=["torch", "converted", "swallowed", "inside torch", "converted later"],
)
def test_interrupted_while_a_command_imports(tmp_path: Path, module: str, moment: str) -> None:
    done = run(tmp_path, WAYS[0], *BENCH, module=module, moment=moment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_interrupted_at_the_end(tmp_path: Path) -> None:
    done = run(tmp_path, WAYS[0], *SHOW, moment="atexit.register(interrupt)")
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_a_background_job_is_not_interrupted(tmp_path: Path) -> None:
    moment = "signal.signal(signal.SIGINT, signal.SIG_IGN); atexit.register(interrupt)"
    done = run(tmp_path, WAYS[0], *SHOW, moment=moment)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_unraisable_exceptions_are_printed(tmp_path: Path) -> None:
    moment = "kept = Kept(); callback = weakref.ref(kept, lambda _: 1 / 0); del kept"
    done = run(tmp_path, WAYS[0], *SHOW, module="tomllib", moment=moment)
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr


# A command that shows the environment it would load torch with.
TELL = """
import atexit, json, os, sys
names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
atexit.register(lambda: print(json.dumps([{name: os.environ[name] for name in names if name in os.environ},
                                          "torch" in sys.modules]), file=sys.stderr))
"""


@pytest.mark.parametrize(
    "given",
    [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}, {"KMP_BLOCKTIME": "5"}],
    ids=["nothing", "spins", "policy", "block time"],
)
def test_threads_wait_passively_unless_the_user_set_it(tmp_path: Path, given: dict[str, str]) -> None:
    for way in WAYS if not given else WAYS[:1]:
        done = run(tmp_path, way, "--version", moment=f"exec({TELL!r})", **given)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stderr) == [given or {"GOMP_SPINCOUNT": "1000"}, False]


LOADED = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and "mesm_cli.entry" in sys.modules:
            print("torch with", os.environ.get("GOMP_SPINCOUNT"), file=sys.stderr)
sys.meta_path.insert(0, Finder())
"""


def test_thread_settings_precede_torch_also_in_launched_processes(tmp_path: Path) -> None:
    done = run(tmp_path, WAYS[0], *BENCH, moment=f"exec({LOADED!r})")
    assert done.returncode == 2
    assert done.stderr.startswith("torch with 1000\n")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    done = run(tmp_path, [*launcher, *WAYS[0]], *BENCH, moment=f"exec({LOADED!r})")
    assert done.returncode
    assert done.stderr.count("torch with") == done.stderr.count("torch with 1000") > 0


COUNTED = """
import gc
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 1000, file=sys.stderr))
"""


def test_few_garbage_collections_during_imports_and_none_at_exit(tmp_path: Path) -> None:
    done = run(tmp_path, WAYS[0], "--version", moment=f"exec({COUNTED!r})")
    assert done.stderr == "10000 True\n"


def test_the_library_does_not_change_the_environment() -> None:
    code = (
        "import os, mesm_core; mesm_core.load_config; mesm_core.MomentRetriever; print('GOMP_SPINCOUNT' in os.environ)"
    )
    kept = {name: value for name, value in os.environ.items() if name not in QUIET}
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("words", [SHOW, (*SHOW, "--json"), ("--help",)])
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_a_reader_that_has_stopped_reading_is_no_fault(words: tuple[str, ...], both: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "mesm_cli.app", *words],
            stdout=closed,
            stderr=closed if both else subprocess.PIPE,
            check=False,
            timeout=600,
        )
    assert done.returncode == 141
    assert not done.stderr
