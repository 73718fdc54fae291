"""The folder of a run: its files, its lock, and its newest readable checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mesm_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mesm_core.checkpoint_content import check_training
from mesm_core.errors import CheckpointError, DataError, OutputError
from mesm_core.files import append_line, make_folder, write_atomically
from mesm_core.inputs import parse_json, read_text
from mesm_core.places import could_not_write, explained

BEST, LAST, CONFIG, METRICS, PREDICTIONS = "best.pt", "last.pt", "config.json", "metrics.jsonl", "predictions"
RECORD, NOT_FINITE, LOCK = "run.json", "not-finite.json", ".lock"
FAMILY, MEMBERS = "family.json", "seed-*"
"""Record of a family of runs with different seeds, and its runs."""
ANOTHER_NAME = "Wait for it, or give this run another --name."
_OLDER_CHECKPOINT = "last.{}.pt"
_RUN_FILES = (
    BEST,
    LAST,
    "last.*.pt",
    CONFIG,
    METRICS,
    RECORD,
    "not-finite*.json",
    "events.out.tfevents.*",
    f"{PREDICTIONS}/*.jsonl",
)


def run_directory(root: Path, dataset: str, name: str) -> Path:
    """Return ``root/<dataset>-<name>``."""
    return root / f"{dataset}-{name}"


def member_folder(family: Path, seed: int) -> Path:
    """Return the folder of a run of a family.

    >>> member_folder(Path("runs/tacos-default"), 2019).as_posix()
    'runs/tacos-default/seed-2019'
    """
    return family / f"seed-{seed}"


def is_family(directory: Path) -> bool:
    """Return whether a folder holds a family of runs."""
    return (directory / FAMILY).is_file()


def prepare_directory(directory: Path, *, overwrite: bool) -> None:
    """Make the directory of a run; with ``overwrite``, remove the files of an earlier run or family in it.

    Raises:
        OutputError: the directory holds a run or a family and ``overwrite`` is off, a run of the family is in use, or
            the directory cannot be written.
    """
    leftovers = run_files(directory)
    if leftovers and not overwrite:
        raise _holds_runs(directory)
    for member in _members(directory):
        if in_use(member):
            raise used_by_another(member)
    make_folder(directory)
    remove_run(directory)


def _holds_runs(directory: Path) -> OutputError:
    if _members(directory) and not is_family(directory):
        return OutputError(
            f"{directory} holds runs of a family, but no {FAMILY}, so the family cannot be continued.",
            hint="Replace them: --overwrite. Keep both: --name ANOTHER.",
        )
    return OutputError(
        f"{directory} already holds a {'family of runs' if is_family(directory) else 'run'}.",
        hint=f"Continue it: --resume {directory}. Replace it: --overwrite. Keep both: --name ANOTHER.",
    )


def run_files(directory: Path) -> list[Path]:
    """Return the files in a directory that a run or a family wrote, and that ``prepare_directory`` removes."""
    own = [path for pattern in _RUN_FILES for path in directory.glob(pattern)]
    below = [path for member in _members(directory) for path in run_files(member)]
    # Last, so that an interrupted removal can be repeated.
    return [*own, *below, *directory.glob(FAMILY)]


def remove_run(directory: Path) -> None:
    """Remove the files that a run or a family wrote. Other files in the folder are kept."""
    members = _members(directory)
    with explained(directory):
        for path in run_files(directory):
            path.unlink()
        for member in (*members, directory):
            with suppress(OSError):
                (member / PREDICTIONS).rmdir()
        for member in members:
            (member / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                member.rmdir()


def _members(directory: Path) -> list[Path]:
    """Return the folders of a family's runs, also if the record of the family was lost."""
    folders = [path for path in directory.glob(MEMBERS) if path.is_dir()]
    return folders if is_family(directory) else [path for path in folders if run_files(path)]


@contextmanager
def claimed(directory: Path, *, patience: float = 0, hint: str = ANOTHER_NAME) -> Iterator[None]:
    """Lock the folder of a run within the context. The system releases the lock if the process is killed.

    Args:
        patience: seconds to wait for another process that has locked it; hint: what to do if it has.

    Raises:
        OutputError: another process has locked the folder, or it cannot be written.
    """
    lock = FileLock(directory / LOCK)
    made = make_folder(directory)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise used_by_another(directory, hint=hint) from None
    except OSError as error:
        _remove_empty(directory, made)
        raise could_not_write(directory / LOCK, error) from error
    try:
        yield
    finally:
        _remove_empty(directory, made)
        lock.release()


def used_by_another(directory: Path, *, hint: str = ANOTHER_NAME) -> OutputError:
    """Return the error for the folder of a run that another process has locked."""
    return OutputError(f"Another process is training in {directory}.", hint=hint)


def _remove_empty(directory: Path, made: list[Path]) -> None:
    """Remove the folder of a run that wrote nothing, and the folders that were made for it."""
    if {path.name for path in directory.iterdir()} <= {LOCK}:
        (directory / LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            for folder in made or [directory]:
                folder.rmdir()


def in_use(directory: Path) -> bool:
    """Return whether a process has locked the folder of a run."""
    if not (directory / LOCK).exists():
        return False
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def save_last(directory: Path, checkpoint: Checkpoint, *, keep: int) -> None:
    """Write ``last.pt``, and keep earlier ones as ``last.1.pt``, ``last.2.pt``, …; ``keep`` files in all.

    Raises:
        OutputError: the file could not be written; the earlier ones are unchanged.
    """
    fresh = directory / "last.new.pt"
    save_checkpoint(fresh, checkpoint)
    with explained(directory / LAST):
        # Oldest first, so that no checkpoint is lost if the process is killed between two renames.
        for age in range(keep - 1, 0, -1):
            newer = directory / (LAST if age == 1 else _OLDER_CHECKPOINT.format(age - 1))
            if newer.exists():
                newer.replace(directory / _OLDER_CHECKPOINT.format(age))
        fresh.replace(directory / LAST)


def load_last(directory: Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest checkpoint that can be read, and a message for each newer one that cannot.

    Raises:
        CheckpointError: no checkpoint can be read.
    """
    older = sorted(directory.glob("last.[0-9]*.pt"), key=lambda path: int(path.name.split(".")[1]))
    candidates = [path for path in (directory / "last.new.pt", directory / LAST, *older) if path.exists()]
    problems: list[str] = []
    for path in candidates:
        try:
            checkpoint = _load_resumable(path)
        except CheckpointError as error:
            if path.name != "last.new.pt":  # an incomplete file of a killed run
                problems.append(error.message)
            continue
        return checkpoint, [f"{problem} Continuing from {path.name} instead." for problem in problems]
    if problems:
        best = directory / BEST
        option = f"from the best weights, --init {best} --name ANOTHER" if best.exists() else "with --overwrite"
        raise CheckpointError("\n".join(problems), hint=f"No checkpoint of the run can be read: start again, {option}.")
    if not directory.exists():
        raise CheckpointError(f"There is no run at {directory}.", hint="`mesm runs` lists the runs below ./runs.")
    raise CheckpointError(
        f"{directory} has no {LAST}: no run saved a checkpoint there.", hint="Start again, with --overwrite."
    )


def _load_resumable(path: Path) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    check_training(checkpoint.training, path)
    return checkpoint


def append_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Append a record to metrics.jsonl.

    Raises:
        OutputError: the line could not be written.
    """
    append_line(directory / METRICS, json.dumps(record))


def read_records(directory: Path) -> list[dict[str, Any]]:
    """Return the records in metrics.jsonl, without an incomplete last line left by a killed run.

    Raises:
        DataError: a line is not the record of an epoch; the message names the line.
    """
    path = directory / METRICS
    if not path.is_file():
        return []
    *lines, _ = read_text(path).split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        record = parse_json(line, f"{path}, line {number}")
        if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
            raise DataError(f"{path}, line {number}: the record has no integer 'epoch'.")
        records.append(record)
    return records


def drop_records_after(directory: Path, epoch: int) -> None:
    """Remove the records of epochs after ``epoch``, which were written without their checkpoint."""
    kept = [record for record in read_records(directory) if record["epoch"] <= epoch]
    write_atomically(directory / METRICS, "".join(json.dumps(record) + "\n" for record in kept).encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))
