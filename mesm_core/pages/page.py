"""The parts of a page: its frame, tables, bars, curves and timelines, as HTML text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --line: #d8dee4; --track: #eef1f4;
  --c0: #0969da; --c1: #1a7f37; --c2: #bc4c00; --c3: #8250df; --c4: #bf3989; --c5: #6e7781; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --line: #30363d;
  --track: #1c2128; --c0: #4493f8; --c1: #3fb950; --c2: #f0883e; --c3: #ab7df8; --c4: #f778ba; --c5: #9198a1; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1, h2, h3, .stats span, .key span { overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p { margin: .2rem 0 .6rem; } .soft { color: var(--soft); overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.fold th, .fold td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.fold td:first-child { min-width: 10rem; }
.stats { display: flex; flex-wrap: wrap; gap: .3rem 2rem; } .stats div { min-width: 5rem; }
.stats b { display: block; font-size: 1.3rem; font-weight: 600; } .stats span { color: var(--soft); font-size: .85rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 2.5rem; }
@media (max-width: 30rem) { th, td { padding: .25rem .4rem; font-size: .8rem; }
  .cards { grid-template-columns: minmax(0, 1fr); } }
.bars { display: flex; align-items: flex-end; gap: 3px; height: 11rem; }
.bars div { flex: 1; min-width: 0; height: 100%; display: flex; flex-direction: column; justify-content: flex-end;
  text-align: center; font-size: .72rem; color: var(--soft); }
.bars i { display: block; background: var(--c0); border-radius: 2px 2px 0 0; min-height: 1px; }
.bars b { font-weight: 400; color: var(--ink); } .bars u { text-decoration: none; white-space: nowrap; }
.lane { display: grid; grid-template-columns: 5.5rem minmax(0, 1fr); gap: .5rem; align-items: center;
  font-size: .8rem; }
.lane .track { position: relative; height: .9rem; margin: 2px 0; background: var(--track); border-radius: 2px; }
.lane .track i { position: absolute; top: 0; bottom: 0; min-width: 2px; border-radius: 2px; }
.lane svg, .plot svg { display: block; width: 100%; } .lane svg { height: 2.2rem; } .plot svg { height: 14rem; }
.plot { border-left: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.ends { display: flex; justify-content: space-between; font-size: .75rem; color: var(--soft); }
.key { font-size: .8rem; } .key span { display: inline-block; max-width: 100%; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 .9em; }
polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
"""
COLOURS = tuple(f"var(--c{number})" for number in range(6))


def page(title: str, subtitle: str, body: Iterable[str]) -> str:
    """Return a whole page; ``title`` and ``subtitle`` are text, ``body`` HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="soft">{escape(subtitle)}</p>\n' + "\n".join(body) + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str, level: int = 2) -> str:
    """Return a titled section of HTML parts."""
    return f"<section><h{level}>{escape(title)}</h{level}>\n" + "\n".join(parts) + "</section>"


def paragraph(text: str) -> str:
    """Return a paragraph of text."""
    return f'<p class="soft">{escape(text)}</p>'


def cards(parts: Iterable[str]) -> str:
    """Return parts side by side where there is room."""
    return '<div class="cards">' + "\n".join(parts) + "</div>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, fold: bool = False) -> str:
    """Return a table; None is shown as a dash, floats with two decimals.

    Where it is wider than the page, it scrolls inside its own frame, or with ``fold`` its cells are folded.
    """
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>\n" for row in rows)
    frame = "wide fold" if fold else "wide"
    return f'<div class="{frame}"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def stats(rows: Iterable[tuple[str, float | None]]) -> str:
    """Return figures with their names, as many a line as there is room for."""
    drawn = (f"<div><b>{_cell(value)}</b><span>{escape(name)}</span></div>" for name, value in rows)
    return '<div class="stats">' + "".join(drawn) + "</div>"


def bars(rows: Sequence[tuple[str, float | None, str]], *, top: float | None = None) -> str:
    """Return a bar chart of (label, value, what the value is written as); None draws no bar.

    Args:
        top: value of a full bar; default: the largest.
    """
    highest = top or max((value for _, value, _ in rows if value is not None), default=0) or 1.0
    drawn = (
        f'<div title="{escape(f"{label}: {shown}")}"><b>{escape(shown)}</b>'
        f'<i style="height:{80 * (value or 0) / highest:.1f}%"></i><u>{escape(label)}</u></div>'
        for label, value, shown in rows
    )
    return '<div class="bars">' + "".join(drawn) + "</div>"


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, x: str) -> str:
    """Return curves over a common axis, each from its (x, y) points; ``x`` names the axis."""
    points = [point for line in series.values() for point in line]
    if not points:
        return paragraph("Nothing recorded yet.")
    (left, low), (right, high) = np.min(points, axis=0), np.max(points, axis=0)
    width, height = max(right - left, 1e-9), max(high - low, 1e-9)
    lines, names = [], []
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        at = " ".join(f"{(a - left) / width * 100:.2f},{98 - (b - low) / height * 96:.2f}" for a, b in line)
        lines.append(f'<polyline points="{at}" style="stroke:{colour}"/>')
        names.append(f'<span><i style="background:{colour}"></i>{escape(name)}</span>')
    return (
        f'<p class="key">{"".join(names)} <span class="soft">&emsp;{low:.4g} to {high:.4g}</span></p>'
        f'<div class="plot"><svg viewBox="0 0 100 100" preserveAspectRatio="none">{"".join(lines)}</svg></div>'
        f'<div class="ends"><span>{escape(x)} {left:g}</span><span>{right:g}</span></div>'
    )


def lane(name: str, spans: Iterable[tuple[float, float, str]], *, duration: float, colour: int) -> str:
    """Return one row of a timeline: (start, end, what it is) spans in seconds."""
    drawn = []
    for start, end, what in spans:
        left, width = 100 * start / duration, 100 * max(end - start, 0) / duration
        style = f"left:{min(left, 99.7):.2f}%;width:{min(width, 100 - left):.2f}%;background:{COLOURS[colour]}"
        drawn.append(f'<i style="{style}" title="{escape(what)}"></i>')
    return f'<div class="lane"><span>{escape(name)}</span><span class="track">{"".join(drawn)}</span></div>'


def saliency_lane(values: np.ndarray, *, share: float = 1.0) -> str:
    """Return a row with the saliency curve, from its lowest to its highest value.

    Args:
        share: of the row's width, from its start, that the curve takes.
    """
    low, spread = float(values.min()), max(float(np.ptp(values)), 1e-9)
    steps = max(len(values) - 1, 1)
    at = " ".join(
        f"{i / steps * share * 100:.2f},{19 - (v - low) / spread * 18:.2f}" for i, v in enumerate(values.tolist())
    )
    line = f'<polyline points="{at}" style="stroke:{COLOURS[3]}"/>'
    svg = f'<svg viewBox="0 0 100 20" preserveAspectRatio="none">{line}</svg>'
    return f'<div class="lane"><span>saliency</span><span>{svg}</span></div>'


def axis(duration: float) -> str:
    """Return the ends of a timeline's axis."""
    ends = f'<span class="ends"><span>0:00</span><span>{clock(duration)}</span></span>'
    return f'<div class="lane"><span></span>{ends}</div>'


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
    return f"{value:.2f}" if isinstance(value, float) else escape(str(value))
