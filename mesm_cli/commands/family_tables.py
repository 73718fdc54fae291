"""Tables of a family of runs: the spread of every metric, and its line in the list of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesm_cli import formats, render

if TYPE_CHECKING:
    from mesm_core.metrics.spread import Spread
    from mesm_core.training.family import FamilySummary
    from mesm_core.training.record import RunSummary


def show(family: FamilySummary) -> None:
    """Print the mean and standard deviation of every metric, those of each run, and the best and the median run."""
    from mesm_core.data.splits import split_labels
    from mesm_core.errors import count

    for problem in family.problems:
        render.warn(problem)
    evaluated = len(family.evaluated)
    render.say(
        f"  {family.dataset}, {count(len(family.seeds), 'seed')}, {family.status}; "
        f"the chosen epoch of {count(evaluated, 'run')}, in %",
        title=str(family.folder),
    )
    spreads = family.spreads()
    for split, label in split_labels(spreads).items():
        columns = [f"{label} metric", "mean ± sd", *(f"seed {seed}" for seed in family.seeds)]
        rows = [[key, spread_text(x), *map(_number, x.values)] for key, x in spreads[split].items()]
        render.table(columns, rows)
    for name, run in (("Best", family.best), ("Median", family.median)):
        if run is not None:
            render.say(f"{name} run: {_described(run)}")


def spread_text(spread: Spread | None) -> str | None:
    """Return a mean with its standard deviation.

    >>> from mesm_core.metrics.spread import Spread
    >>> spread_text(Spread(51.234, 0.456, (51.0, 51.5))), spread_text(Spread(51.2, None, (51.2,)))
    ('51.23 ± 0.46', '51.20')
    """
    if spread is None:
        return None
    return f"{spread.mean:.2f}" + ("" if spread.sd is None else f" ± {spread.sd:.2f}")


def line(family: FamilySummary, columns: list[str]) -> list[object]:
    """Return the row of a family in the list of runs: epochs of all runs, and means over runs and splits."""
    from mesm_core.metrics.table import full_key

    done = sum(run.epochs for run in family.runs if run is not None)
    spreads = family.spreads()
    cells = []
    for name in columns:
        found = [x for split in spreads.values() if (x := split.get(full_key(name))) is not None]
        # Runs with several splits show the mean over splits; its spread is not that of any split.
        one = spread_text(found[0]) if len(found) == 1 else None
        cells.append(one or (f"{sum(x.mean for x in found) / len(found):.2f}" if found else None))
    started = family.started[:16].replace("T", " ")
    return [
        f"{family.folder.name} ({len(family.seeds)} seeds)",
        done,
        *cells,
        started,
        formats.duration(family.seconds),
        family.status,
    ]


def _described(run: RunSummary) -> str:
    from mesm_core.training.directory import BEST

    assert run.best is not None
    return f"{run.path / BEST} (epoch {run.best['epoch']}, {run.best['select']['score']:.2f})"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
