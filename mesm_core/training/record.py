"""Records of runs: time, device, machine and versions of every session; and the list of runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from mesm_core.config.load import flatten
from mesm_core.errors import DataError, MesmError, listing
from mesm_core.inputs import read_json
from mesm_core.training.directory import (
    CONFIG,
    MEMBERS,
    METRICS,
    RECORD,
    in_use,
    is_family,
    read_records,
    write_json,
)
from mesm_core.training.run_files import Epochs, Record, Settings, check, damaged
from mesm_core.version import __version__

_Record = TypeVar("_Record")

PACKAGES = ("torch", "numpy", "h5py", "scipy", "pydantic")


class RunRecord:
    """``run.json``: one entry per session (a start or a resumption), which records how the session ended.

    Args:
        first_epoch: epoch in which the session begins; made_of: what else affects the results, e.g. the data.
    """

    def __init__(
        self, directory: Path, *, device: str, processes: int, first_epoch: int, made_of: Mapping[str, Any] = {}
    ) -> None:
        self._path = directory / RECORD
        self._started_at = time.monotonic()
        try:
            self._sessions = read_sessions(directory)
        except DataError:  # a damaged record of earlier sessions does not prevent training
            self._sessions = []
        self._sessions.append(
            {
                "started": _now(),
                "first_epoch": first_epoch,
                "command": sys.argv,
                "device": device,
                "processes": processes,
                **made_of,
                "host": describe_host(),
                "versions": versions(),
                "git": git_commit(Path.cwd()),
                "seconds": 0.0,
                "end": "running",
            }
        )

    def write(self, end: str = "running", *, calibration: dict[str, Any] | None = None) -> None:
        """Write the record; ``end`` is running, finished, stopped early, interrupted or failed.

        Args:
            calibration: the main figures of the calibration that the session has fitted.
        """
        if calibration is not None:
            self._sessions[-1]["calibration"] = calibration
        self._sessions[-1] |= {"seconds": round(time.monotonic() - self._started_at, 1), "end": end}
        write_json(self._path, {"sessions": self._sessions})


@dataclass(frozen=True)
class RunSummary:
    """A run, as read from its folder."""

    path: Path
    config: dict[str, Any]
    records: list[dict[str, Any]]
    sessions: list[dict[str, Any]]

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return str(self.config["dataset"]["name"])

    @property
    def epochs(self) -> int:
        """Number of completed epochs."""
        return max((record["epoch"] for record in self.records), default=0)

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the best epoch so far, or None before the first evaluation."""
        judged = [record for record in self.records if record.get("best") and record.get("eval")]
        return judged[-1] if judged else None

    @property
    def calibration(self) -> dict[str, Any] | None:
        """The main figures of the last calibration, or the reason why there is none; None before the run's end."""
        found = [session["calibration"] for session in self.sessions if session.get("calibration")]
        return dict(found[-1]) if found else None

    @property
    def seconds(self) -> float:
        """Time spent in all sessions."""
        return float(sum(session["seconds"] for session in self.sessions))

    @property
    def started(self) -> str:
        """Start of the first session (ISO 8601), or an empty string."""
        return str(self.sessions[0]["started"]) if self.sessions else ""

    @property
    def circumstances(self) -> dict[str, Any]:
        """Device, processes, versions and commit of the last session: what affects results besides the settings."""
        if not self.sessions:
            return {}
        last = self.sessions[-1]
        versions = {name: last["versions"].get(name) for name in ("mesm", "torch")}
        return {"device": last["device"], "processes": last["processes"], **versions, "commit": last["git"]}

    @property
    def status(self) -> str:
        """How the last session ended, or "running"."""
        end = str(self.sessions[-1]["end"]) if self.sessions else "unknown"
        return "killed" if end == "running" and not in_use(self.path) else end


def read_run(path: Path) -> RunSummary:
    """Read a run from its folder.

    Raises:
        DataError: the folder holds no run, or one of its files is damaged; the message names the file.
    """
    config = path / CONFIG
    if is_family(path):
        members = sorted(member.parent.name for member in path.glob(f"{MEMBERS}/{CONFIG}"))
        raise DataError(
            f"{path} is a family of runs.", hint=f"Name one of them: {listing(members) or 'none has begun'}."
        )
    if not config.is_file():
        raise DataError(f"{path} holds no run: it has no {CONFIG}.", hint="`mesm runs` lists all runs.")
    settings = _read_json(config)
    check(settings, Settings, config)
    try:
        records = read_records(path)
    except (MesmError, ValueError, RecursionError, OSError) as error:
        raise damaged(path / METRICS, error) from error
    check({"lines": records}, Epochs, path / METRICS)
    return RunSummary(path, settings, records, read_sessions(path))


def find_runs(root: Path) -> tuple[list[RunSummary], list[str]]:
    """Return the runs in a folder, newest first, and a message for each one that cannot be read.

    Raises:
        DataError: the folder does not exist.
    """
    if not root.is_dir():
        raise DataError(f"No folder of runs at {root}.", hint="`mesm train` makes one; `mesm runs DIR` lists another.")
    runs, problems = read_each((path.parent for path in root.glob(f"*/{CONFIG}")), read_run)
    return sorted(runs, key=lambda run: run.started, reverse=True), problems


def read_each(folders: Iterable[Path], read: Callable[[Path], _Record]) -> tuple[list[_Record], list[str]]:
    """Return what ``read`` returns for each folder, and a message for each folder that cannot be read."""
    found: list[_Record] = []
    problems: list[str] = []
    for folder in folders:
        try:
            found.append(read(folder))
        except DataError as error:
            problems.append(error.message)
    return found, problems


def config_differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (key, value in a, value in b) for each setting that differs; the value is None if it is missing.

    >>> config_differences({"train": {"lr": 1, "seed": 2}}, {"train": {"lr": 3, "seed": 2}})
    [('train.lr', 1, 3)]
    >>> config_differences({"loss": {}}, {"loss": {"weights": {}}})
    []
    """
    left, right = ({key: value for key, value in flatten(tree) if value != {}} for tree in (a, b))
    keys = dict.fromkeys([*left, *right])
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def versions() -> dict[str, str]:
    """Return the versions of mesm, Python and the packages that affect results."""
    found = {"mesm": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            # A loaded package also gives its build (torch 2.13.0+cpu).
            found[name] = str(getattr(sys.modules.get(name), "__version__", None) or version(name))
        except PackageNotFoundError:
            continue
    return found


def describe_host() -> dict[str, Any]:
    """Return the machine's name, system, processor and number of cores."""
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }


def git_commit(folder: Path) -> str | None:
    """Return the commit of the repository that contains ``folder``, with ``+changes`` if there are any, or None."""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def read_sessions(directory: Path) -> list[dict[str, Any]]:
    """Return the sessions in the ``run.json`` of a run, or none if the file does not exist.

    Raises:
        DataError: the file is damaged.
    """
    path = directory / RECORD
    if not path.is_file():
        return []
    record = _read_json(path)
    check(record, Record, path)
    return list(record["sessions"])


def _read_json(path: Path) -> Any:
    try:
        return read_json(path, surrogates=True)
    except DataError as error:
        raise damaged(path, error) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
