"""``mesm score`` with folders of runs and families, and the comparison of two groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mesm_cli import render
from mesm_cli.commands.family_tables import spread_text

if TYPE_CHECKING:
    from mesm_core.inference.comparison import Comparison
    from mesm_core.inference.submissions import Scored
    from mesm_core.metrics.permutation import Permutation


@dataclass(frozen=True)
class Group:
    """A group of runs: what was given on the command line, the submissions by name, and their scores."""

    given: list[Path]
    files: dict[str, Path]
    scored: list[Scored]

    @property
    def name(self) -> str:
        """The name of a single folder or file, or the number of files."""
        return self.given[0].name if len(self.given) == 1 else f"{self.given[0].name} + {len(self.given) - 1}"


def find(paths: list[Path], split: str | None) -> dict[str, Path]:
    """Return the submissions of files, and of folders of runs and families, by a name that is not repeated.

    Raises:
        DataError: a folder has no predictions.
        typer.BadParameter: a submission is given twice.
    """
    from mesm_core.training.predictions import prediction_files

    found: dict[str, Path] = {}
    for path in paths:
        files = {path.name: path} if not path.is_dir() else prediction_files(path, split)
        for name, file in files.items():
            if file in found.values():
                raise typer.BadParameter(f"{file} is given twice", param_hint="PREDICTIONS")
            label = name if len(files) == 1 or len(paths) == 1 else f"{path.name}/{name}"
            found[label if label not in found else str(file)] = file
    return found


def compare(groups: list[Group], *, seed: int, form: str | None) -> None:
    """Print the comparison of two groups: as a table, as csv, markdown or latex, or as JSON if ``form`` is None."""
    from mesm_core.inference.comparison import compare_groups

    first, second = groups
    shared = set(first.files.values()) & set(second.files.values())
    if shared:
        raise typer.BadParameter(f"{min(shared)} is in both groups", param_hint="--against")
    found = compare_groups(first.scored, second.scored, seed=seed)
    if form is None:
        files = {
            name: [str(path) for path in group.files.values()]
            for name, group in zip(("first", "second"), groups, strict=True)
        }
        render.data(files | {"metrics": {key: comparison.as_json() for key, comparison in found.items()}})
        return
    columns = ["metric", first.name, second.name, "difference", "p (runs)", "p (videos)"]
    rows = [_row(key, comparison) for key, comparison in found.items()]
    if form != "table":
        render.raw(columns, rows, form=form)
        return
    render.say(f"{len(first.scored)} runs against {len(second.scored)}; mean ± standard deviation over runs, in %")
    render.table(columns, rows)
    _explain(first, second, list(found.values()))


def _row(key: str, found: Comparison) -> list[str]:
    first, second = spread_text(found.first), spread_text(found.second)
    return [key, first or "–", second or "–", f"{found.difference:+.2f}", _p(found.runs), _p(found.videos)]


def _p(found: Permutation | None) -> str:
    return "–" if found is None else f"{found.p:.3f}" if found.p >= 0.001 else f"{found.p:.1g}"


def _explain(first: Group, second: Group, found: list[Comparison]) -> None:
    """Say what the tests exchange, and the smallest p-value that they can give."""
    runs, videos = found[0].runs, next((each.videos for each in found if each.videos is not None), None)
    sizes = f"{len(first.scored)} + {len(second.scored)} runs"
    ways = f"in all {runs.tried} ways" if runs.exact else f"in {runs.tried} random ways"
    render.say(
        f"p (runs): the {sizes} are exchanged between the groups {ways}; no p below {runs.smallest:.2g} is "
        "possible. Is the difference larger than that between seeds?",
        style="dim",
    )
    if videos is not None:
        ways = f"in all {videos.tried} ways" if videos.exact else f"in {videos.tried} random ways"
        render.say(
            f"p (videos): the groups' answers about whole videos are exchanged {ways}; no p below "
            f"{videos.smallest:.2g} is possible. Does the difference hold for other videos?",
            style="dim",
        )
