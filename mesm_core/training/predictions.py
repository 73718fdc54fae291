"""The predictions that runs and families have written."""

from __future__ import annotations

from pathlib import Path

from mesm_core.errors import DataError, listing
from mesm_core.inference.evaluate import predictions_name
from mesm_core.training.directory import BEST, CONFIG, PREDICTIONS, is_family
from mesm_core.training.family import read_summary


def prediction_files(path: Path, split: str | None) -> dict[str, Path]:
    """Return the predictions of each run of a family, of one run, or the file itself, by a short name.

    A run has those of its best epoch on the splits that chose it, and those that ``mesm eval`` wrote for ``best.pt``.

    Args:
        path: the folder of a family or run, or a submission; split: None if there is only one.

    Raises:
        DataError: the folder holds no run, or a run has no predictions or those of several splits.
    """
    if not path.is_dir():
        return {path.name: path}
    if is_family(path):
        summary = read_summary(path)
        return {
            f"seed-{seed}": _of_run(path / f"seed-{seed}" if run is None else run.path, split)
            for seed, run in zip(summary.seeds, summary.runs, strict=True)
        }
    if not (path / CONFIG).is_file():
        raise DataError(f"{path} is a folder without a run.", hint="Give a submission, a run, or a family of runs.")
    return {path.name: _of_run(path, split)}


def _of_run(run: Path, split: str | None) -> Path:
    if split is None:
        files = sorted((run / PREDICTIONS).glob("*.jsonl"))
        if len(files) > 1:
            splits = listing(path.stem for path in files)
            raise DataError(f"{run} has several predictions: {splits}.", hint="Choose the split with --split.")
    else:
        name = predictions_name(split)
        names = [name, f"{Path(BEST).stem}-{name}"]
        files = [path for path in (run / PREDICTIONS / name for name in names) if path.is_file()]
    if not files:
        what = f"of {split}" if split else "yet"
        make = f"Make them with: mesm eval {run / BEST}" + (f" --split {split}" if split else "")
        train = f"Train it first: mesm train --resume {run.parent if is_family(run.parent) else run}"
        raise DataError(f"{run} has no predictions {what}.", hint=make if (run / BEST).is_file() else train)
    return files[0]
