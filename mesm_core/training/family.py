"""A family of runs that differ in their seed: its record on disk, and the spread of its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesm_core.build import Paths
from mesm_core.config.load import Layer, resolve
from mesm_core.config.schema import Config
from mesm_core.errors import DataError
from mesm_core.inputs import read_json
from mesm_core.metrics.spread import Spread, spreads
from mesm_core.training.directory import CONFIG, FAMILY, LAST, in_use, member_folder, write_json
from mesm_core.training.record import RunSummary, config_differences, read_each, read_run
from mesm_core.training.run_files import FamilyRecord, check, damaged

ENDED = ("finished", "stopped early")
LENGTH = ("train.epochs", "train.patience")
"""Settings that decide whether a finished run has more to do."""


@dataclass(frozen=True)
class Family:
    """Runs that differ in their seed, each in a folder of its own below ``folder``.

    ``seeds``: in the order of training; ``config``: settings of all runs, except for the seed; ``parallel``: runs that
    train at once, which determines the threads of each; ``init``: checkpoint of the initial weights;
    ``skip_missing``: leave out videos without features.
    """

    folder: Path
    seeds: tuple[int, ...]
    config: Config
    paths: Paths
    parallel: int = 1
    init: Path | None = None
    skip_missing: bool = False

    def config_of(self, seed: int) -> Config:
        """Return the settings of a run."""
        return self.config.model_copy(update={"train": self.config.train.model_copy(update={"seed": seed})})

    def folder_of(self, seed: int) -> Path:
        """Return the folder of a run."""
        return member_folder(self.folder, seed)

    @property
    def has_begun(self) -> bool:
        """Whether a run has begun: its settings and its first checkpoint are written."""
        return any((self.folder_of(seed) / CONFIG).is_file() for seed in self.seeds)

    def is_finished(self, seed: int) -> bool:
        """Return whether a run has ended by itself, under the family's present settings."""
        folder = self.folder_of(seed)
        if not (folder / CONFIG).is_file() or not (folder / LAST).is_file():
            return False
        try:
            run = read_run(folder)
        except DataError:  # a damaged record does not prevent resuming
            return False
        changed = {key for key, _, _ in config_differences(run.config, self.config_of(seed).model_dump(mode="json"))}
        return run.status in ENDED and not changed & set(LENGTH)

    def write(self) -> None:
        """Write the record, with the results of the runs so far.

        Raises:
            OutputError: it could not be written.
        """
        content = {
            "seeds": list(self.seeds),
            "parallel": self.parallel,
            "settings": self.config.model_dump(mode="json"),
            "paths": self.paths.as_json(),
            "init": None if self.init is None else str(self.init.resolve()),
            "skip_missing": self.skip_missing,
        }
        results = summarise(self.folder, self.seeds, dataset=self.config.dataset.name).results()
        write_json(self.folder / FAMILY, content | {"results": results})


def read_family(folder: Path) -> Family:
    """Read the record of a family.

    Raises:
        DataError: the folder holds no family, or its record is damaged; ConfigError: a setting is invalid.
    """
    content = _read_record(folder)
    paths = content["paths"]
    return Family(
        folder,
        tuple(content["seeds"]),
        resolve([Layer(str(folder / FAMILY), content["settings"])]),
        Paths(Path(paths["annotations"]), tuple(map(Path, paths["features"])), Path(paths["text"])),
        parallel=content["parallel"],
        init=None if content["init"] is None else Path(content["init"]),
        skip_missing=content["skip_missing"],
    )


@dataclass(frozen=True)
class FamilySummary:
    """The results of a family.

    ``runs``: in the order of ``seeds``, None where a run has not begun or is damaged; ``problems``: a message for each
    damaged run.
    """

    folder: Path
    seeds: tuple[int, ...]
    runs: tuple[RunSummary | None, ...]
    dataset: str
    in_use: bool
    problems: tuple[str, ...] = ()

    @property
    def evaluated(self) -> list[RunSummary]:
        """The runs with an evaluated epoch, from the best to the worst."""
        runs = [run for run in self.runs if run is not None and run.best is not None and run.best.get("select")]
        return sorted(runs, key=lambda run: -_score(run))

    @property
    def best(self) -> RunSummary | None:
        """The run whose chosen epoch has the highest score."""
        return self.evaluated[0] if self.evaluated else None

    @property
    def median(self) -> RunSummary | None:
        """The run with the median score; of an even number the lower of the two in the middle."""
        return self.evaluated[len(self.evaluated) // 2] if self.evaluated else None

    @property
    def status(self) -> str:
        """``finished``, ``running``, or how many of the runs are finished."""
        done = sum(run is not None and run.status in ENDED for run in self.runs)
        if self.in_use:
            return "running"
        return "finished" if done == len(self.seeds) else f"{done} of {len(self.seeds)} finished"

    @property
    def started(self) -> str:
        """Start of the first run (ISO 8601), or an empty string."""
        return min((run.started for run in self.runs if run is not None and run.started), default="")

    @property
    def seconds(self) -> float:
        """Time spent in all runs."""
        return sum(run.seconds for run in self.runs if run is not None)

    def spreads(self) -> dict[str, dict[str, Spread]]:
        """Return, by split and key of the summary, the spread of the metrics of each run's chosen epoch."""
        found = [None if run is None or run.best is None else run.best["eval"] for run in self.runs]
        splits = dict.fromkeys(split for briefs in found if briefs for split in briefs)
        return {split: spreads([(briefs or {}).get(split, {}) for briefs in found]) for split in splits}

    def as_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints: the family, and its results with the names of its runs' folders."""
        about = {"family": str(self.folder), "dataset": self.dataset, "seeds": list(self.seeds), "status": self.status}
        return {**about, "started": self.started, "seconds": self.seconds, **self.results()}

    def results(self) -> dict[str, Any]:
        """Return the results as JSON-compatible values."""
        return {
            "runs": [_run_as_json(seed, run) for seed, run in zip(self.seeds, self.runs, strict=True)],
            "metrics": {
                split: {key: spread.as_json() for key, spread in of_split.items()}
                for split, of_split in self.spreads().items()
            },
            "best_run": None if self.best is None else self.best.path.name,
            "median_run": None if self.median is None else self.median.path.name,
        }


def summarise(folder: Path, seeds: Sequence[int], *, dataset: str = "") -> FamilySummary:
    """Read the results of the runs of a family."""
    runs: list[RunSummary | None] = []
    problems = []
    for path in (member_folder(folder, seed) for seed in seeds):
        run = None
        try:
            run = read_run(path) if (path / CONFIG).is_file() else None
        except DataError as error:
            problems.append(error.message)
        runs.append(run)
    return FamilySummary(folder, tuple(seeds), tuple(runs), dataset, in_use(folder), tuple(problems))


def read_summary(folder: Path) -> FamilySummary:
    """Read the results of a family from its folder.

    Raises:
        DataError: the folder holds no family, or its record is damaged.
    """
    content = _read_record(folder)
    return summarise(folder, content["seeds"], dataset=str(content["settings"]["dataset"]["name"]))


def find_families(root: Path) -> tuple[list[FamilySummary], list[str]]:
    """Return the families in a folder, newest first, and a message for each one that cannot be read."""
    families, problems = read_each((path.parent for path in root.glob(f"*/{FAMILY}")), read_summary)
    return sorted(families, key=lambda family: family.started, reverse=True), problems


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / FAMILY
    if not path.is_file():
        raise DataError(f"{folder} holds no family of runs: it has no {FAMILY}.", hint="`mesm runs` lists all runs.")
    try:
        content = read_json(path, surrogates=True)
    except DataError as error:
        raise damaged(path, error) from error
    check(content, FamilyRecord, path)
    return dict(content)


def _score(run: RunSummary) -> float:
    assert run.best is not None
    return float(run.best["select"]["score"])


def _run_as_json(seed: int, run: RunSummary | None) -> dict[str, Any]:
    about: dict[str, Any] = {"seed": seed, "run": None, "status": "not started", "epochs": 0, "best": None}
    if run is None:
        return about
    best = None if run.best is None else {key: run.best.get(key) for key in ("epoch", "select", "eval")}
    return about | {"run": run.path.name, "status": run.status, "epochs": run.epochs, "best": best}
