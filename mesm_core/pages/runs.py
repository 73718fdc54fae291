"""Writes a run as a page: its curves, best epoch, sessions and settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesm_core.config.load import flatten
from mesm_core.data.splits import split_labels
from mesm_core.errors import count
from mesm_core.files import write_atomically
from mesm_core.metrics.table import curve_names, full_key
from mesm_core.pages.page import cards, curves, page, paragraph, section, stats, table
from mesm_core.training.record import RunSummary

if TYPE_CHECKING:  # Jinja2 is loaded when a page is written
    from markupsafe import Markup


def run_curves(run: RunSummary) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return a run's curves by chart and name, as (epoch, value) points."""
    losses: dict[str, list[tuple[float, float]]] = {}
    scores: dict[str, list[tuple[float, float]]] = {}
    for record in run.records:
        for name, value in record["losses"].items():
            if name.startswith("loss") and not name[-1].isdigit():
                losses.setdefault(name, []).append((record["epoch"], value))
        found = record.get("eval", {})
        for split, label in split_labels(found).items():
            for metric in curve_names():
                value = found[split].get(full_key(metric))
                if value is not None:
                    scores.setdefault(f"{label} {metric}", []).append((record["epoch"], value))
    return {"losses": losses, "metrics": scores}


def write_run_page(path: Path, run: RunSummary, *, overwrite: bool = False) -> None:
    """Write the page of a run.

    Raises:
        OutputError: the file exists and ``overwrite`` is off.
    """
    lines = run_curves(run)
    total = {name: points for name, points in lines["losses"].items() if name == "loss"}
    parts = {name: points for name, points in lines["losses"].items() if name != "loss"}
    body = [
        section("Best epoch", stats(_best(run))),
        section("Metrics", curves(lines["metrics"], x="epoch")),
        cards([section("Loss", curves(total, x="epoch")), section("Its parts", curves(parts, x="epoch"))]),
        section("Confidence", _confidence(run)),
        section("Sessions", _sessions(run.sessions)),
        section("Settings", _settings(run.config)),
    ]
    subtitle = f"{run.dataset}, {count(run.epochs, 'epoch')} done, {run.status}"
    write_atomically(path, page(run.path.name, subtitle, body).encode(), overwrite=overwrite)


def _best(run: RunSummary) -> list[tuple[str, float | None]]:
    if run.best is None:
        return [("epochs evaluated", 0.0)]
    rows: list[tuple[str, float | None]] = []
    found = run.best["eval"]
    for split, label in split_labels(found).items():
        rows += [(f"{label} {key.removeprefix('MR-full-')}", v) for key, v in found[split].items() if "-full-" in key]
    return rows


def _confidence(run: RunSummary) -> Markup:
    found = run.calibration
    if found is None or "reason" in found:
        return paragraph("No calibration." if found is None else f"No calibration: {found['reason']}")
    return stats([(f"{name}, %", value) for name, value in found.items() if name != "data"])


def _settings(config: dict[str, Any]) -> Markup:
    return table(["setting", "value"], [[key, str(value)] for key, value in flatten(config)], fold=True)


def _sessions(sessions: list[dict[str, Any]]) -> Markup:
    rows = [
        [s["started"], s["first_epoch"], f"{s['seconds']:.0f} s", s["end"], s["device"], s["processes"],
         s["host"]["processor"], s["versions"].get("torch"), (s["git"] or "–")[:12]]
        for s in sessions
    ]  # fmt: skip
    names = ["started", "from epoch", "took", "end", "device", "processes", "processor", "torch", "commit"]
    return table(names, rows)
