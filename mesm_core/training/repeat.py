"""Repeats a run, or a family of runs, from its record: the same settings and the same data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mesm_core.build import Paths
from mesm_core.build.fingerprint import differing_files, files_by_role, hash_files
from mesm_core.checkpoint import load_checkpoint
from mesm_core.config.schema import Config
from mesm_core.errors import DataError
from mesm_core.official.checkpoint import checkpoint_files
from mesm_core.training.directory import CONFIG, LAST, RECORD, is_family
from mesm_core.training.family import Family, read_family
from mesm_core.training.record import describe_host, git_commit, read_run, versions
from mesm_core.training.start import Given, Recorded, repeated


@dataclass(frozen=True)
class Repeat:
    """A run to repeat.

    ``config``, ``paths``: with the given changes; ``changed``: (key, value in the run, value now) of each setting that
    they change; ``session``: record of the run's first session; ``later``: records of its other sessions; ``seeds``,
    ``parallel``: those of a family, else empty and 1.
    """

    folder: Path
    config: Config
    paths: Paths
    changed: list[tuple[str, Any, Any]]
    session: dict[str, Any]
    later: list[dict[str, Any]]
    seeds: tuple[int, ...] = ()
    parallel: int = 1

    @property
    def init(self) -> Path | None:
        """The checkpoint that the initial weights came from."""
        return None if self.session["init"] is None else Path(self.session["init"])

    @property
    def skip_missing(self) -> bool:
        """Whether videos without features were left out."""
        return bool(self.session["skip_missing"])

    def data(self) -> dict[str, Path]:
        """Return the files that training reads, by role."""
        return files_by_role(self.config, self.paths, init=[] if self.init is None else checkpoint_files(self.init))


def read_repeat(folder: Path, overrides: Sequence[str], given: Given) -> Repeat:
    """Read the record of a run, or of a family's first run that has begun, and apply changes to settings and paths.

    Args:
        folder: the folder of the run or family; overrides: ``section.key=value`` arguments; given: paths.

    Raises:
        DataError: the folder holds no run, or its record is damaged or does not name the data; ConfigError: a setting
            is invalid.
    """
    folder = folder.parent if folder.name == LAST else folder
    family = read_family(folder) if is_family(folder) else None
    first = folder if family is None else _first_begun(family)
    run = read_run(first)
    if not run.sessions or not run.sessions[0].get("data"):
        raise DataError(
            f"{first} does not record its data (its {RECORD} is missing, or from an earlier mesm).",
            hint=f"Use its settings without comparing the data: --config {first / 'config.json'}",
        )
    session, *later = run.sessions
    defaults: dict[str, Any] = {"init": None, "skip_missing": False, "threads": None, "paths": {}}
    config, paths, changed = repeated(Recorded(folder, run.config, session.get("paths") or {}), overrides, given)
    seeds, parallel = ((), 1) if family is None else (family.seeds, family.parallel)
    return Repeat(folder, config, paths, changed, defaults | session, later, seeds, parallel)


def _first_begun(family: Family) -> Path:
    """Return the folder of the first run of a family that has begun, since only its record names the data."""
    folders = [family.folder_of(seed) for seed in family.seeds]
    begun = [folder for folder in folders if (folder / CONFIG).is_file()]
    if not begun:
        raise DataError(
            f"{family.folder} cannot be repeated: no run of the family has begun.",
            hint=f"Train it first: mesm train --resume {family.folder}",
        )
    return begun[0]


def hash_now(repeat: Repeat) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each file that training would read, as (role, path and hash).

    Raises:
        DataError: a file cannot be read.
    """
    for role, path in repeat.data().items():
        yield role, hash_files({role: path})[role]


def refuse_other_data(repeat: Repeat, now: dict[str, dict[str, Any]], *, force: bool) -> list[str]:
    """Return a message for each file that differs from the run's data.

    Raises:
        DataError: files differ, and ``force`` is off.
    """
    differing = differing_files(repeat.session["data"], now)
    if differing and not force:
        raise DataError(
            f"The data are not those of {repeat.folder}:\n" + "\n".join(f"  {line}" for line in differing),
            hint="Name the right files with --features, --annotations and --glove or --clip; --force trains anyway.",
        )
    return differing


def other_circumstances(repeat: Repeat, *, device: str, processes: int, threads: int) -> list[str]:
    """Return a message for everything besides settings and data that differs and may change the results.

    Args:
        device, processes: those of the new run; threads: of torch, in each process.
    """
    then = repeat.session
    before = {
        "device": then["device"],
        "processes": then["processes"],
        "threads of torch": then["threads"],
        "processor": then["host"]["processor"],
        **then["versions"],
        "commit": then["git"],
    }
    now = {
        "device": device,
        "processes": processes,
        "threads of torch": threads,
        "processor": describe_host()["processor"],
        **versions(),
        "commit": git_commit(Path.cwd()),
    }
    messages = [
        f"{name}: {before.get(name)} in the run, {now.get(name)} now"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    if any(session.get("data") != then["data"] for session in repeat.later):
        messages.append("the run was resumed with other data than it began with; it is repeated with the first")
    return messages


def same_weights(a: Path, b: Path) -> bool:
    """Return whether two checkpoints have exactly the same weights.

    Raises:
        CheckpointError: one cannot be read.
    """
    first, second = load_checkpoint(a).model, load_checkpoint(b).model
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
