"""Messages, tables, progress bars and timelines. The only module that prints."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from mesm_cli.curves import span_bar, sparkline
from mesm_cli.formats import formatted, value_text
from mesm_cli.layout import GAP, NARROW, laid_out, shown_losses, wrapped
from mesm_cli.screen import Screen

if TYPE_CHECKING:
    import numpy as np

    from mesm_core.inference.answers import Answer, Moment
    from mesm_core.training.loop import Step

WIDE = 120
TERMINAL_WIDTH = "MESM_TERMINAL_WIDTH"
"""Environment variable that tells a child process how much room its lines have on the parent's terminal."""
LIVE_LOSSES = 4
"""Number of losses besides the total in the live line."""
BAR_SECONDS, LINE_SECONDS = 0.5, 30.0

_out = Screen(highlight=False, soft_wrap=False, emoji=False)
_err = Screen(stderr=True, highlight=False, emoji=False)


# Number of progress bars shown. Lines printed meanwhile go through the bar's console, so that they do not overlap.
_live = 0


def say(text: str | Text = "", *, title: str = "", style: str = "") -> None:
    """Print a line on stdout: ``title`` in bold, then the text in a rich ``style``. Strings are not read as markup."""
    _screen().print(Text(title, "bold").append(text, style) if isinstance(text, str) else text, soft_wrap=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return a line for ``say`` and ``note`` of texts, and of texts with a rich style."""
    return Text.assemble(*parts)


def _screen() -> Console:
    return _err if _live and _out.is_terminal and _err.is_terminal else _out


def width() -> int | None:
    """Return the width of the terminal, also if a parent process shows the output on it; None without a terminal."""
    if _out.is_terminal:
        return _out.width
    width_for_child = os.environ.get(TERMINAL_WIDTH, "")
    return int(width_for_child) if width_for_child.isdecimal() else None


@contextmanager
def _showing(bar: Progress) -> Iterator[Progress]:
    global _live
    with bar:
        _live += 1
        try:
            yield bar
        finally:
            _live -= 1


def note(text: str | Text) -> None:
    """Print a line on stderr."""
    _err.print(text, soft_wrap=True, markup=False)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _err.print(f"[yellow]Warning:[/] {escape(text)}", soft_wrap=True)


def error(message: str, hint: str | None = None) -> None:
    """Print an error and a hint on stderr."""
    _err.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        _err.print(f"  {escape(hint)}", soft_wrap=True, style="dim")


def text(content: str) -> None:
    """Print a text on stdout without changes."""
    sys.stdout.write(content)


def can_ask() -> bool:
    """Return whether somebody can answer a question: standard input and standard error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """Ask a question on stderr that is answered with y or n."""
    return typer.confirm(question, default=True, err=True)


def ask_text(question: str, default: str) -> str:
    """Ask a question on stderr that is answered with a line of text."""
    return str(typer.prompt(question, default=default, err=True))


def data(value: object) -> None:
    """Print a value as JSON on stdout. Numbers that are not finite become null, as JSON has none."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table on stdout. The first column is text, the others are numbers.

    In a narrow terminal, long cells are wrapped; if that is not enough, the columns are printed in parts, one below the
    other. If stdout is not a terminal, each row is one line of any length.
    """
    cells = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    if title:
        _out.print(escape(title), style="italic", soft_wrap=True)
    for number, (head, body) in enumerate(laid_out([str(column) for column in columns], cells, width=width())):
        if number:
            _out.print()
        for line in head:
            _out.print(escape(line), style="bold", soft_wrap=True)
        for line in body:
            _out.print(escape(line), soft_wrap=True)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print ``name  value`` lines on stdout, aligned."""
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    for name, value in listed:
        _out.print(f"[bold]{escape(name)}[/]{' ' * (width - len(name))}  {escape(value)}", soft_wrap=True)


def raw(columns: Sequence[str], rows: Iterable[Sequence[object]], *, form: str) -> None:
    """Print rows on stdout as ``csv``, ``markdown`` or ``latex``."""
    text(formatted(columns, rows, form=form))


def keys(rows: Iterable[tuple[str, object, str]]) -> None:
    """Print ``key = value  # source`` lines on stdout, aligned."""
    listed = [(key, value_text(value), source) for key, value, source in rows]
    width = max(len(f"{key} = {value}") for key, value, _ in listed)
    for key, value, source in listed:
        line = f"{key} = {value}"
        colour = "dim" if source == "default" else "cyan"
        _out.print(f"{escape(line)}{' ' * (width - len(line))}  [{colour}]# {escape(source)}[/]", soft_wrap=True)


def toml(sections: Mapping[str, Mapping[str, object]], *, top: Mapping[str, object]) -> None:
    """Print the settings of ``top``, then sections of settings, on stdout as a TOML file."""
    blocks = (
        "\n".join(
            [*([f"[{name}]"] if name else []), *(f"{key} = {value_text(value)}" for key, value in values.items())]
        )
        for name, values in {"": top, **sections}.items()
    )
    sys.stdout.write("\n\n".join(blocks) + "\n")


@contextmanager
def progress(description: str, total: int | None, *, unit: str = "") -> Iterator[Callable[[int, str], None]]:
    """Show a progress bar on stderr and yield ``advance(amount, text)``. Silent if stderr is not a terminal."""
    with _showing(_bar_on_stderr(unit)) as bar:
        task = bar.add_task(description, total=total, text="")

        def advance(amount: int, text: str = "") -> None:
            bar.update(task, advance=amount, text=text)

        yield advance


@contextmanager
def bytes_progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar in bytes, with MB/s, on stderr and yield ``advance(bytes)``."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with _showing(_progress(columns)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda size: bar.update(task, advance=size)


def _bar_on_stderr(unit: str, *, quiet: bool = False) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        *([TextColumn(unit)] if unit else []),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    return _progress(columns, quiet=quiet)


def _progress(columns: Sequence[ProgressColumn], *, quiet: bool = False) -> Progress:
    return Progress(
        *columns,
        console=_err,
        transient=True,
        disable=quiet or not _err.is_terminal,
        redirect_stdout=_out.is_terminal,  # otherwise rich prints output for a pipe on the terminal
    )


class TrainingProgress:
    """The live line of a training run. Losses are read from the device at most every ``BAR_SECONDS``.

    If stderr is not a terminal, a line is printed every ``LINE_SECONDS`` instead.

    Args:
        bar: the progress bar; place: of the run in a family, shown before everything else; lines: whether to print
            lines instead; clock: returns seconds.
    """

    def __init__(
        self, bar: Progress, *, place: str = "", lines: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bar = bar
        self._place = f"{place}  " if place else ""
        self._task = bar.add_task(f"{self._place}Loading", total=None, text="")
        self._lines = lines
        self._clock = clock
        self._epoch = -1
        self._queries = 0
        self._began = self._shown = clock()

    def step(self, step: Step, *, epochs: int, processes: int) -> None:
        """Show a completed step. The totals of several processes are estimated from this one."""
        now, queries = self._clock(), step.queries * processes
        epoch = f"{self._place}Epoch {step.epoch + 1}/{epochs}"
        if step.epoch != self._epoch:
            # The duration of the first step is unknown, so its queries do not count towards the speed.
            self._epoch, self._queries, self._began = step.epoch, -queries, now
            self._bar.reset(self._task, total=step.steps, description=epoch)
        self._queries += queries
        self._bar.update(self._task, completed=step.index + 1)
        if self._due(now):
            speed = f" {self._queries / (now - self._began):.0f} q/s" if self._queries and now > self._began else ""
            shown = shown_losses(step.checked, most=LIVE_LOSSES if self._lines or _err.width >= WIDE else 0)
            text = " ".join(f"{name} {float(step.checked[key]) * processes:.3g}" for name, key in shown) + speed
            self._bar.update(self._task, text=text)
            if self._lines:
                note(f"{epoch}  step {step.index + 1}/{step.steps}  {text}")

    def busy(self, what: str, done: int, total: int) -> None:
        """Show the progress of work between epochs."""
        self._epoch = -1
        self._bar.update(self._task, completed=done, total=total, description=f"{self._place}{what}", text="")
        if self._lines and self._due(self._clock()):
            note(f"{self._place}{what}  {done}/{total}")

    def _due(self, now: float) -> bool:
        """Return whether it is time for the next update; if so, start waiting for the one after it."""
        due = now - self._shown >= (LINE_SECONDS if self._lines else BAR_SECONDS)
        if due:
            self._shown = now
        return due


@contextmanager
def training_progress(
    *, place: str = "", quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[TrainingProgress]:
    """Show the progress of a training run on stderr: a live line in a terminal, else a line every 30 seconds."""
    with _showing(_bar_on_stderr("", quiet=quiet)) as bar:
        yield TrainingProgress(bar, place=place, lines=not quiet and not _err.is_terminal, clock=clock)


def metrics(brief: Mapping[str, float | None]) -> None:
    """Print a summary with the keys of docs/evaluation.md as one table."""
    table(["metric", "%"], [(key, None if value is None else f"{value:.2f}") for key, value in brief.items()])


def length_table(tables: Mapping[str, Any]) -> None:
    """Print one row for all queries and one for each length range: the number of queries, and every metric in %."""
    from mesm_core.metrics.report import rows_by_length

    columns, rows = rows_by_length(tables)
    shown = [[name, count, *(None if x is None else f"{x:.2f}" for x in figures)] for name, count, *figures in rows]
    table(["moments", "queries", *columns], shown)


def answer(found: Answer, *, video: str, duration: float, top: int) -> None:
    """Draw the query and the ``top`` moments of an answer about a video of ``duration`` seconds."""
    from mesm_core.inference.answer_texts import confidence_texts

    say(f"  in {video}", title=found.query)
    for line in confidence_texts(found):
        say(f"    {line}")
    timeline(found.moments[:top], duration=duration, saliency=found.saliency, seen=found.seen)


def timeline(moments: Sequence[Moment], *, duration: float, saliency: np.ndarray, seen: float) -> None:
    """Draw moments on a time axis, and below them the saliency curve of the ``seen`` seconds.

    A moment has its score in front of it and, if the model is calibrated, its confidence in %.
    """
    from mesm_core.pages.page import clock

    end_text = clock(duration)
    digits = max(len(end_text), 7)
    calibrated = any(moment.confidence is not None for moment in moments)
    label = 2 * digits + (20 if calibrated else 15)
    width = max(min(_out.width, 100) - label - 1, 20)
    screen = _screen()
    for rank, moment in enumerate(moments, start=1):
        bar = span_bar(moment.start, moment.end, duration, width, unicode=_unicode())
        times = f"{clock(moment.start):>{digits}} – {clock(moment.end):<{digits}}"
        sure = "" if moment.confidence is None else f" {moment.confidence:4.0%}"
        screen.print(f"{rank:>2}  {times} {moment.score:5.2f}{sure}  [cyan]{bar}[/]", soft_wrap=True)
    curve = sparkline(saliency, max(round(width * seen / duration), 1), unicode=_unicode())
    screen.print(f"{'saliency':>{label - 2}}  [magenta]{curve}[/]", soft_wrap=True)
    axis = f"0:00{' ' * max(width - 4 - len(end_text), 1)}{end_text}"
    screen.print(f"{' ' * label}{axis}", soft_wrap=True, style="dim")


def curves(series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw one line on stdout for each curve of (epoch, value) points: name, first and last value, and shape."""
    shown = max(min(_out.width, 100) - 44, 16)
    for name, points in series.items():
        values = [value for _, value in points]
        first, last = f"{values[0]:.4g}", f"{values[-1]:.4g}"
        _out.print(
            f"{name:<20} {first:>8} → {last:<8}  [cyan]{sparkline(values, shown, unicode=_unicode())}[/]",
            soft_wrap=True,
        )


def _unicode() -> bool:
    return "utf" in (_out.encoding or "").lower() or bool(os.environ.get("MESM_UNICODE"))


def findings(rows: Sequence[tuple[str, str, str]]) -> None:
    """Print one line on stdout for each check: ok or the kind of problem, the subject, and the message."""
    styles = {"ok": "green", "warning": "yellow", "missing": "yellow", "error": "bold red", "damaged": "bold red"}
    levels = max((len(level) for level, _, _ in rows), default=0)
    subjects = max((cell_len(subject) for _, subject, _ in rows), default=0)
    indent = levels + subjects + 2 * GAP
    for level, subject, message in rows:
        front = f"[{styles[level]}]{level}[/]{' ' * (levels - len(level) + GAP)}[bold]{escape(subject)}[/]"
        first, *rest = wrapped(message, None if (shown := width()) is None else max(shown - indent, NARROW))
        _out.print(f"{front}{' ' * (subjects - cell_len(subject) + GAP)}{escape(first)}", soft_wrap=True)
        for line in rest:
            _out.print(f"{' ' * indent}{escape(line)}", soft_wrap=True)
