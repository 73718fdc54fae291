"""Values as text: durations, settings, help texts, and rows as CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import inspect
import io
import json
from collections.abc import Iterable, Sequence


def duration(seconds: float) -> str:
    """Return a time span in words.

    >>> duration(42), duration(3725)
    ('42 s', '1 h 2 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def help_text(docstring: str | None) -> str:
    """Return a docstring as the help of a command, with one line for each paragraph, so that it wraps at any width.

    >>> help_text("Train a model\\n    and keep it.\\n\\n    Example:\\n\\n      mesm train")
    'Train a model and keep it.\\n\\nExample:\\n\\nmesm train'
    """
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(text.split()) for text in paragraphs)


def value_text(value: object) -> str:
    """Return a setting's value as TOML writes it.

    >>> value_text(True), value_text(("train", "val"))
    ('true', '["train", "val"]')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def formatted(columns: Sequence[str], rows: Iterable[Sequence[object]], *, form: str) -> str:
    """Return rows as ``csv``, ``markdown`` or ``latex``; the first column is aligned left, the others right.

    >>> print(formatted(["metric", "a"], [["mIoU", "51.20"]], form="markdown"), end="")
    | metric | a |
    | --- | ---: |
    | mIoU | 51.20 |
    """
    cells = [list(map(str, columns)), *([str(cell) for cell in row] for row in rows)]
    if form == "csv":
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows(cells)
        return written.getvalue()
    if form == "markdown":
        lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
        lines.insert(1, "| --- |" + " ---: |" * (len(columns) - 1))
    else:
        escaped = [[_latex(cell) for cell in row] for row in cells]
        body = [" & ".join(row) + r" \\" for row in escaped]
        head = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
        lines = [head, r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    text = text.replace("–", "--")
    return "".join(f"\\{c}" if c in "&%$#_{}" else c for c in text)
