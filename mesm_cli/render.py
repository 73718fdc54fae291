"""Tables, progress and timelines: the only module that prints."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from mesm_core.pages.page import clock

if TYPE_CHECKING:
    from mesm_core.training.loop import Step

BLOCKS = "▁▂▃▄▅▆▇█"
LIVE_LOSSES = ("loss", "loss_span", "loss_giou", "loss_label", "loss_saliency")
WIDE = 120

_out = Console(highlight=False, soft_wrap=False)
_err = Console(stderr=True, highlight=False)


# Lines printed while a progress bar is live must go through the bar's console, or they run into it.
_live = 0


def say(text: str = "") -> None:
    """Print a line for a person on stdout; ``text`` may hold rich markup."""
    (_err if _live and _out.is_terminal and _err.is_terminal else _out).print(text, soft_wrap=True)


def width() -> int | None:
    """Return the terminal's width, or None where stdout is no terminal."""
    return _out.width if _out.is_terminal else None


@contextmanager
def _showing(bar: Progress) -> Iterator[Progress]:
    global _live
    with bar:
        _live += 1
        try:
            yield bar
        finally:
            _live -= 1


def plain(text: str) -> str:
    """Return the text with its square brackets kept from being read as markup."""
    return escape(text)


def note(text: str) -> None:
    """Print a line for a person on stderr; ``text`` may hold rich markup."""
    _err.print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _err.print(f"[yellow]Warning:[/] {escape(text)}", soft_wrap=True)


def error(message: str, hint: str | None = None) -> None:
    """Print an error, and what to do about it, on stderr."""
    _err.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        _err.print(f"  {escape(hint)}", soft_wrap=True, style="dim")


def data(value: object) -> None:
    """Print a value as JSON on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table on stdout; the first column is text, the others are numbers."""
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in rows:
        drawn.add_row(*("–" if cell is None else escape(str(cell)) for cell in row))
    _out.print(drawn)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print ``name  value`` lines on stdout, aligned."""
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    for name, value in listed:
        _out.print(f"[bold]{escape(name)}[/]{' ' * (width - len(name))}  {escape(value)}", soft_wrap=True)


def raw(columns: Sequence[str], rows: Iterable[Sequence[object]], *, form: str) -> None:
    """Print rows on stdout as ``csv``, ``markdown`` or ``latex``."""
    table_rows = [list(map(str, columns)), *([str(cell) for cell in row] for row in rows)]
    if form == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows(table_rows)
        return
    if form == "markdown":
        lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table_rows]
        lines.insert(1, "| --- |" + " ---: |" * (len(columns) - 1))
    else:
        escaped = [[_latex(cell) for cell in row] for row in table_rows]
        body = [" & ".join(row) + r" \\" for row in escaped]
        head = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
        lines = [head, r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}"]
    sys.stdout.write("\n".join(lines) + "\n")


def _latex(text: str) -> str:
    text = text.replace("–", "--")
    return "".join(f"\\{c}" if c in "&%$#_{}" else c for c in text)


def keys(rows: Iterable[tuple[str, object, str]]) -> None:
    """Print ``key = value  # source`` lines on stdout, aligned."""
    listed = [(key, value_text(value), source) for key, value, source in rows]
    width = max(len(f"{key} = {value}") for key, value, _ in listed)
    for key, value, source in listed:
        line = f"{key} = {value}"
        colour = "dim" if source == "default" else "cyan"
        _out.print(f"{escape(line)}{' ' * (width - len(line))}  [{colour}]# {escape(source)}[/]", soft_wrap=True)


def toml(sections: Mapping[str, Mapping[str, object]]) -> None:
    """Print sections of settings on stdout as a TOML file."""
    blocks = (
        "\n".join([f"[{name}]", *(f"{key} = {value_text(value)}" for key, value in values.items())])
        for name, values in sections.items()
    )
    sys.stdout.write("\n\n".join(blocks) + "\n")


def value_text(value: object) -> str:
    """Return a setting's value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


@contextmanager
def progress(description: str, total: int | None, *, unit: str = "") -> Iterator[Callable[[int, str], None]]:
    """Show a progress bar on stderr and yield ``advance(amount, text)``; silent where stderr is no terminal."""
    with _showing(_bar_on_stderr(unit)) as bar:
        task = bar.add_task(description, total=total, text="")

        def advance(amount: int, text: str = "") -> None:
            bar.update(task, advance=amount, text=text)

        yield advance


@contextmanager
def bytes_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar in bytes, with MB/s, on stderr and yield ``advance(bytes)``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with _showing(Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda size: bar.update(task, advance=size)


def _bar_on_stderr(unit: str, *, quiet: bool = False) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        *([TextColumn(unit)] if unit else []),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=_err, transient=True, disable=quiet or not _err.is_terminal)


class TrainingProgress:
    """The live line of a training run; losses are read from the device a few times a second at most."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("Loading", total=None, text="")
        self._epoch = -1
        self._queries = 0
        self._began = self._shown = time.monotonic()

    def step(self, step: Step, *, epochs: int, processes: int) -> None:
        """Show a step that is done; of several processes this one's batches stand for all."""
        now, queries = time.monotonic(), step.queries * processes
        if step.epoch != self._epoch:
            # The first step's time is not known, so its queries do not count towards the speed.
            self._epoch, self._queries, self._began = step.epoch, -queries, now
            self._bar.reset(self._task, total=step.steps, description=f"Epoch {step.epoch + 1}/{epochs}")
        self._queries += queries
        self._bar.update(self._task, completed=step.index + 1)
        if now - self._shown >= 0.5:
            self._shown = now
            speed = f" {self._queries / (now - self._began):.0f} q/s" if self._queries else ""
            shown = LIVE_LOSSES if _err.width >= WIDE else LIVE_LOSSES[:1]
            losses = [f"{name.removeprefix('loss_')} {float(step.losses[name]) * processes:.3g}" for name in shown]
            self._bar.update(self._task, text=" ".join(losses) + speed)

    def busy(self, what: str, done: int, total: int) -> None:
        """Show how far work between epochs is."""
        self._epoch = -1
        self._bar.update(self._task, completed=done, total=total, description=what, text="")


@contextmanager
def training_progress(*, quiet: bool = False) -> Iterator[TrainingProgress]:
    """Show a training run's progress on stderr; silent where stderr is no terminal, and if ``quiet``."""
    with _showing(_bar_on_stderr("", quiet=quiet)) as bar:
        yield TrainingProgress(bar)


def metrics(brief: Mapping[str, float | None]) -> None:
    """Print a summary of evaluation.md's keys as one table."""
    table(["metric", "%"], [(key, None if value is None else f"{value:.2f}") for key, value in brief.items()])


def length_table(tables: Mapping[str, Any]) -> None:
    """Print one row a length range: queries, recalls, mean IoU, mAP."""
    thresholds = list(tables["full"]["MR-R1"])
    shown = [t for t in ("0.1", "0.3", "0.5", "0.7") if t in thresholds]
    rows = []
    for name, scores in tables.items():
        if name == "brief":
            continue
        if scores is None:
            rows.append([name, 0, *[None] * (len(shown) + 2)])
            continue
        recalls = [f"{scores['MR-R1'][t]:.2f}" for t in shown]
        rows.append(
            [
                name,
                scores["queries"],
                *recalls,
                f"{scores['MR-mIoU']:.2f}",
                f"{scores['MR-mAP']['average']:.2f}",
            ]
        )
    table(["moments", "queries", *(f"R1@{t}" for t in shown), "mIoU", "mAP"], rows)


def timeline(rows: Iterable[tuple[float, float, float]], *, duration: float, saliency: np.ndarray) -> None:
    """Draw (start, end, score) rows on a time axis on stdout, above the saliency curve."""
    width = max(min(_out.width, 100) - 30, 20)
    for rank, (start, end, score) in enumerate(rows, start=1):
        bar = _bar(start, end, duration, width)
        _out.print(f"{rank:>2}  {clock(start):>7} – {clock(end):<7} {score:5.2f}  [cyan]{bar}[/]", soft_wrap=True)
    _out.print(f"{'saliency':>27}  [magenta]{sparkline(saliency, width)}[/]", soft_wrap=True)
    end_text = clock(duration)
    axis = f"0:00{' ' * max(width - 4 - len(end_text), 1)}{end_text}"
    _out.print(f"{' ' * 29}{axis}", soft_wrap=True, style="dim")


def curves(series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw one line a curve of (epoch, value) points on stdout: its name, first and last value, and its course."""
    shown = max(min(_out.width, 100) - 44, 16)
    for name, points in series.items():
        values = np.array([value for _, value in points])
        first, last = f"{values[0]:.4g}", f"{values[-1]:.4g}"
        _out.print(f"{name:<20} {first:>8} → {last:<8}  [cyan]{sparkline(values, shown)}[/]", soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a time span in words.

    >>> duration(42), duration(3725)
    ('42 s', '1 h 2 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def sparkline(values: np.ndarray, width: int) -> str:
    """Return a curve of ``width`` characters, from its lowest to its highest value.

    >>> sparkline(np.array([0.0, 1.0]), 4)
    '▁▁██'
    """
    at = np.minimum((np.arange(width) * len(values)) // width, len(values) - 1)
    sampled = np.asarray(values, float)[at]
    low, spread = sampled.min(), max(float(np.ptp(sampled)), 1e-9)
    levels = np.minimum((sampled - low) / spread * len(BLOCKS), len(BLOCKS) - 1).astype(int)
    characters = BLOCKS if _unicode() else "_.-~=+*#"
    return "".join(characters[level] for level in levels)


def _bar(start: float, end: float, duration: float, width: int) -> str:
    first = min(int(start / duration * width), width - 1)
    last = max(min(round(end / duration * width), width), first + 1)
    full, empty = ("█", "·") if _unicode() else ("#", ".")
    return empty * first + full * (last - first) + empty * (width - last)


def _unicode() -> bool:
    return "utf" in (_out.encoding or "").lower() or bool(os.environ.get("MESM_UNICODE"))


def findings(rows: Sequence[tuple[str, str, str]]) -> None:
    """Print one line a check on stdout: ok, a warning or an error, its subject, and what was found."""
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[bold red]error[/]"}
    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(no_wrap=True)
    drawn.add_column(no_wrap=True, style="bold")
    drawn.add_column(overflow="fold")
    for level, subject, message in rows:
        drawn.add_row(marks[level], escape(subject), escape(message))
    _out.print(drawn)
