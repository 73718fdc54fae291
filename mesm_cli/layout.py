"""Tables as lines of text: aligned columns that fit a given width. No column and no character is dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

GAP = 2
# Columns are wrapped to this width before they are moved below the others.
NARROW, NARROW_HEAD = 12, 8
NARROW_FIRST = 20
# Long words are preferably broken after these characters.
BREAKS = " /,;_-="

Part = tuple[list[str], list[str]]


def laid_out(columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None) -> list[Part]:
    """Return a table as parts of (header lines, body lines). The first column is aligned left, the others right.

    Args:
        width: maximum characters in a line. With None there is no limit: one part, and one line for each row.

    >>> laid_out(["run", "mIoU"], [["a", "51.20"], ["longer", "9.00"]], width=None)
    [(['run      mIoU'], ['a       51.20', 'longer   9.00'])]
    >>> for head, body in laid_out(["", "first", "second"], [["x", "1", "2"]], width=10):
    ...     print(*head, *body, sep="|")
       first|x      1
       second|x       2
    """
    lines = [list(columns), *map(list, rows)]
    natural = [max(cell_len(line[number]) for line in lines) for number in range(len(columns))]
    if width is None or _total(natural) <= width:
        return [_part(lines, natural, wraps=False)]
    bodies = [max((cell_len(row[number]) for row in rows), default=0) for number in range(len(columns))]
    floors = [
        max(min(body, NARROW), min(cell_len(column), NARROW_HEAD)) if number else min(natural[0], NARROW_FIRST)
        for number, (body, column) in enumerate(zip(bodies, columns, strict=True))
    ]
    parts = []
    for group in _groups(floors, width):
        chosen = [[line[number] for number in group] for line in lines]
        sizes = _shrunk([natural[n] for n in group], [floors[n] for n in group], width)
        parts.append(_part(chosen, sizes, wraps=True))
    return parts


def wrapped(text: str, width: int | None) -> list[str]:
    """Return a text as lines of at most ``width`` characters, preferably broken after spaces and separators.

    >>> wrapped("runs/tacos-default/best.pt", 12)
    ['runs/tacos-', 'default/', 'best.pt']
    >>> wrapped("abcdef", 4), wrapped("", 4), wrapped("no limit", None)
    (['abcd', 'ef'], [''], ['no limit'])
    """
    lines = []
    while width is not None and cell_len(text) > width:
        end = _longest(text, width)
        space = text.rfind(" ", 0, end + 1)
        cut = space if space > end // 2 else max(text.rfind(mark, 0, end) for mark in BREAKS) + 1
        end = cut if text[:cut].strip() else end
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*lines, text] if text or not lines else lines


def _longest(text: str, width: int) -> int:
    """Return how many characters fit. Wide characters count twice."""
    end, used = 0, 0
    while end < len(text) and used + cell_len(text[end]) <= width:
        used += cell_len(text[end])
        end += 1
    return max(end, 1)


def _total(sizes: Sequence[int]) -> int:
    return sum(sizes) + GAP * (len(sizes) - 1)


def _groups(floors: Sequence[int], width: int) -> list[list[int]]:
    """Return the columns of each part: the first column, which names the rows, and as many others as fit."""
    groups = [[0]]
    for number in range(1, len(floors)):
        if len(groups[-1]) > 1 and _total([floors[n] for n in (*groups[-1], number)]) > width:
            groups.append([0])
        groups[-1].append(number)
    return groups


def _shrunk(sizes: list[int], floors: Sequence[int], width: int) -> list[int]:
    """Return the sizes with the widest columns narrowed until all fit or have their minimum size."""
    sizes = list(sizes)
    while _total(sizes) > width:
        wide = [number for number, size in enumerate(sizes) if size > floors[number]]
        if not wide:
            break
        sizes[max(wide, key=lambda number: sizes[number])] -= 1
    return sizes


def _part(lines: Sequence[Sequence[str]], sizes: Sequence[int], *, wraps: bool) -> Part:
    drawn = [_row(line, sizes, wraps=wraps) for line in lines]
    return drawn[0], [text for row in drawn[1:] for text in row]


def _row(cells: Sequence[str], sizes: Sequence[int], *, wraps: bool) -> list[str]:
    parts = [wrapped(cell, size) if wraps else [cell] for cell, size in zip(cells, sizes, strict=True)]
    texts = []
    for level in range(max(map(len, parts))):
        shown = [part[level] if level < len(part) else "" for part in parts]
        spaces = [" " * max(size - cell_len(text), 0) for text, size in zip(shown, sizes, strict=True)]
        aligned = [shown[0] + spaces[0], *(space + text for space, text in zip(spaces[1:], shown[1:], strict=True))]
        texts.append((" " * GAP).join(aligned).rstrip())
    return texts


def shown_losses(names: Iterable[str], *, most: int | None = None) -> list[tuple[str, str]]:
    """Return (short name, name) of the losses to show: the total, then the losses of the last decoder layer.

    Args:
        most: maximum number of losses besides the total; default: all.

    >>> shown_losses(["loss_span", "loss_giou", "class_error", "loss_span_0", "loss"], most=1)
    [('loss', 'loss'), ('span', 'loss_span')]
    """
    known = list(names)
    parts = [name for name in known if name.startswith("loss_") and not name.rpartition("_")[2].isdigit()]
    total = [("loss", "loss")] if "loss" in known else []
    return total + [(name.removeprefix("loss_"), name) for name in parts[:most]]
