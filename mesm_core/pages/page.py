"""The parts of a page: its frame, tables, bars, curves and timelines, made by the templates of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mesm_core.pages.templating import part, render, source

if TYPE_CHECKING:  # Jinja2 is loaded when a page is written
    from markupsafe import Markup

COLOURS = tuple(f"var(--c{number})" for number in range(6))
FEW_POINTS = 25
"""Most points of a curve that are drawn as dots, too."""


def page(title: str, subtitle: str, body: Iterable[Markup], *, style: str = "", script: str = "") -> str:
    """Return a whole page, which needs no other file.

    Args:
        title, subtitle: text, which is escaped; body: the page's parts.
        style, script: names of a further stylesheet and of a script among the templates.
    """
    styles = source("page.css") + (source(style) if style else "")
    return render(
        "page.html",
        title=title,
        subtitle=subtitle,
        styles=styles,
        body=body,
        script=source(script) if script else "",
    )


def section(title: str, *parts: Markup, level: int = 2) -> Markup:
    """Return a section of parts under a title."""
    return part("section", title, parts, level)


def paragraph(text: str) -> Markup:
    """Return a paragraph of text."""
    return part("paragraph", text)


def cards(parts: Iterable[Markup]) -> Markup:
    """Return parts side by side where there is room."""
    return part("cards", list(parts))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, fold: bool = False) -> Markup:
    """Return a table; None is shown as a dash, floats with two decimals.

    A table wider than the page scrolls inside its own frame; with ``fold``, long cells are broken into lines.
    """
    return part("table", columns, [list(map(_cell, row)) for row in rows], fold)


def stats(rows: Iterable[tuple[str, float | None]]) -> Markup:
    """Return (name, value) figures, as many in a line as there is room for."""
    return part("stats", [(name, _cell(value)) for name, value in rows])


def bars(rows: Sequence[tuple[str, float | None, str]], *, top: float | None = None) -> Markup:
    """Return a bar chart of (label, value, text of the value) rows; None draws no bar.

    Args:
        top: value of a full bar; default: the largest value.
    """
    highest = top or max((value for _, value, _ in rows if value is not None), default=0) or 1.0
    return part("bars", [(label, 80 * (value or 0) / highest, shown) for label, value, shown in rows])


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, x: str) -> Markup:
    """Return one curve for each name, from its (x, y) points, on common axes; ``x`` names the horizontal axis.

    Curves of at most ``FEW_POINTS`` points show each of them as a dot.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        return paragraph("Nothing recorded yet.")
    (left, low), (right, high) = np.min(points, axis=0), np.max(points, axis=0)
    width, height = max(right - left, 1e-9), max(high - low, 1e-9)
    lines = [
        (
            name,
            [((a - left) / width * 100, 98 - (b - low) / height * 96) for a, b in line],
            COLOURS[number % len(COLOURS)],
            len(line) <= FEW_POINTS,
        )
        for number, (name, line) in enumerate(series.items())
    ]
    return part("curves", lines, f"{low:.4g}", f"{high:.4g}", x, f"{left:g}", f"{right:g}")


def lane(name: str, spans: Iterable[tuple[float, float, str]], *, duration: float, colour: int) -> Markup:
    """Return one row of a timeline from (start, end, description) spans in seconds."""
    return part("lane", name, [(*bar(a, b, duration), COLOURS[colour], text) for a, b, text in spans])


def bar(start: float, end: float, duration: float) -> tuple[float, float]:
    """Return the left edge and the width of a span on a timeline, in percent; a span at the end stays visible.

    >>> bar(5, 10, 20)
    (25.0, 25.0)
    """
    left, width = 100 * start / duration, 100 * max(end - start, 0) / duration
    return min(left, 99.7), min(width, 100 - left)


def saliency_lane(values: np.ndarray, *, share: float = 1.0) -> Markup:
    """Return a row with the saliency curve (L,), from its lowest to its highest value.

    Args:
        share: part of the row's width, from its start, that the curve takes.
    """
    low, spread = float(values.min()), max(float(np.ptp(values)), 1e-9)
    steps = max(len(values) - 1, 1)
    points = [(i / steps * share * 100, 19 - (v - low) / spread * 18) for i, v in enumerate(values.tolist())]
    return part("saliency_lane", points, COLOURS[3])


def axis(duration: float) -> Markup:
    """Return the labels at both ends of a timeline of ``duration`` seconds."""
    return part("axis", clock(duration))


def clock(seconds: float) -> str:
    """Return seconds as m:ss.s, with hours where there are any.

    >>> clock(75.26), clock(3725)
    ('1:15.3', '1:02:05.0')
    """
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest / 10:04.1f}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
