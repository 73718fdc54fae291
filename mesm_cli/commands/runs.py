"""``mesm runs``: list runs, draw their curves, and compare their settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mesm_cli import completion, formats, options, render
from mesm_cli.commands import family_tables

if TYPE_CHECKING:
    from mesm_core.training.record import RunSummary


class _ListFirst(TyperGroup):
    """A group whose default command is ``list``: `mesm runs DIR` means `mesm runs list DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListFirst,
    help="List runs (mesm runs [DIR]), draw their curves, or compare their settings.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
RunFolder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder of a run, e.g. runs/tacos-default.", autocompletion=completion.runs),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", help="Write a web page.", show_default=False, rich_help_panel=options.OUTPUT),
]
ROOT = Path("runs")


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the runs.")] = ROOT,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the runs in a folder, newest first: epochs, best metrics, start, duration and status.

    A family of runs with different seeds has a line with the mean and standard deviation of their metrics, followed by
    its runs.

    Examples:

      mesm runs

      mesm runs show runs/tacos-default
    """
    from mesm_core.metrics.table import column_names
    from mesm_core.training.family import FamilySummary, find_families
    from mesm_core.training.record import find_runs

    runs, problems = find_runs(folder)
    families, more = find_families(folder)
    for problem in (*problems, *more, *(text for family in families for text in family.problems)):
        render.warn(problem)
    every: list[RunSummary | FamilySummary] = [*runs, *families]
    found = sorted(every, key=lambda each: each.started, reverse=True)
    if json_:
        render.data([each.as_json() if isinstance(each, FamilySummary) else _as_json(each) for each in found])
        return
    if not found:
        render.say(f"No runs in {folder} yet. `mesm train` starts one.")
        return
    rows: list[list[object]] = []
    for each in found:
        if isinstance(each, FamilySummary):
            rows.append(family_tables.line(each, column_names()))
            rows += [_line(run, indent="  ") for run in each.runs if run is not None]
        else:
            rows.append(_line(each))
    render.table(["run", "epochs", *column_names(), "started (UTC)", "took", "status"], rows)


def _line(run: RunSummary, *, indent: str = "") -> list[object]:
    """Return the row of a run in the list."""
    from mesm_core.metrics.table import column_names

    return [
        f"{indent}{run.path.name}",
        f"{run.epochs}/{run.config['train']['epochs']}",
        *(_score(run, name) for name in column_names()),
        run.started[:16].replace("T", " "),
        formats.duration(run.seconds),
        run.status,
    ]


@app.command()
def show(
    run: RunFolder,
    html: Html = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Draw the losses and metrics of a run, and show its sessions and versions.

    For a family of runs with different seeds: the mean, standard deviation and values of every metric, and its best and
    median run.
    """
    from mesm_cli.confidence_tables import calibration_text
    from mesm_core.errors import count
    from mesm_core.pages.runs import run_curves, write_run_page
    from mesm_core.places import refuse_inputs
    from mesm_core.training.directory import is_family, run_files
    from mesm_core.training.record import read_run

    if html is None and is_family(run):
        _show_family(run, json_=json_)
        return
    refuse_inputs([html], run_files(run))
    summary = read_run(run)
    if html is not None:
        write_run_page(html, summary, overwrite=overwrite)
        render.note(f"Page: {html}")
    if json_:
        render.data(_as_json(summary) | {"records": summary.records, "sessions": summary.sessions})
        return
    render.say(f"  {summary.dataset}, {count(summary.epochs, 'epoch')} done, {summary.status}", title=str(run))
    for chart in run_curves(summary).values():
        render.curves(chart)
    if summary.calibration is not None:
        render.say(f"Confidence: {calibration_text(summary.calibration)}")
    for session in summary.sessions:
        host, torch = session["host"]["processor"], session["versions"].get("torch")
        commit = f", commit {session['git'][:12]}" if session["git"] else ""
        took = formats.duration(session["seconds"])
        line = f"{session['started']}: {took} on {session['device']} ({host}), torch {torch}{commit}"
        render.say(line, style="dim")


def _show_family(folder: Path, *, json_: bool) -> None:
    from mesm_core.training.family import read_summary

    summary = read_summary(folder)
    if json_:
        render.data(summary.as_json())
    else:
        family_tables.show(summary)


@app.command()
def diff(
    a: RunFolder,
    b: RunFolder,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the settings and versions in which two runs differ, and the metrics of both."""
    from mesm_core.metrics.table import curve_names
    from mesm_core.training.record import config_differences, read_run

    first, second = read_run(a), read_run(b)
    changed = config_differences(first.config, second.config)
    around = config_differences(first.circumstances, second.circumstances)
    if json_:
        pairs = [{key: [x, y] for key, x, y in rows} for rows in (changed, around)]
        render.data({"settings": pairs[0], "around": pairs[1], "runs": [_as_json(first), _as_json(second)]})
        return
    if not changed:
        render.say("The settings are the same.")
    rows = [(key, formats.value_text(x), formats.value_text(y)) for key, x, y in (*changed, *around)]
    scores = [(f"best {name}", _score(first, name), _score(second, name)) for name in curve_names()]
    render.table(["", first.path.name, second.path.name], [*rows, *scores])


def _score(run: RunSummary, name: str) -> str | None:
    from mesm_core.metrics.table import full_key

    if run.best is None:
        return None
    values = [value for brief in run.best["eval"].values() if (value := brief.get(full_key(name))) is not None]
    return f"{sum(values) / len(values):.2f}" if values else None


def _as_json(run: RunSummary) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "dataset": run.dataset,
        "epochs": run.epochs,
        "of": run.config["train"]["epochs"],
        "best": None if run.best is None else {"epoch": run.best["epoch"], "eval": run.best["eval"]},
        "started": run.started,
        "seconds": run.seconds,
        "status": run.status,
        "calibration": run.calibration,
    }
