"""What can be wrong with JSON, JSON lines and TOML that can be read: values of the wrong type, size or shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

MARK = "@@value@@"
ODD = (
    "null", "true", "false", "0", "-1", "1", "0.5", "-0.0", '""', '" "', "[]", "{}", "[[]]", "[null]", '["x"]',
    '[1, 2, 3]', '{"a": 1}', "NaN", "Infinity", "-Infinity", "1e999", "1e308", "1e-320", "9" * 400, "9" * 5000,
    "-" + "9" * 30, "9223372036854775807", "9223372036854775808", "1000000", "1000000000000", '"\\ud800"',
    '"a\\udfffb"', '"\\u0000"', '"../../etc/passwd"', '"/"', '"nan"', '"1"', '"ünï\\u2028"', '"[bold]x[/]"', '"[/]"',
    '"' + "x " * 30_000 + '"', "[[1, 2]]", "[[2, 1]]", "[1e999, 2]", "[0, 1e308]", '"' + "x" * 5000 + '"',
    '{"a": 1, "a": 2}',
)  # fmt: skip
"""JSON texts in place of a value."""
DEEP = 100_000

ODD_TOML = (
    "true", "0", "-1", "1.5", '""', "[]", "{}", "[1]", '["x"]', '["a", 1]', "nan", "inf", "-inf", "1e999",
    "99999999999999999999", "9" * 400, "9" * 5000, "9223372036854775808", "1000000", "1000000000000", '"\\u0000"',
    '"x"', "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "0x10", "[" * 5000 + "]" * 5000, '"' + "x" * 5000 + '"',
    '"[/]"', "{a = 1}", "[[1, 2], [3]]", "'''\nx'''", '"tensorboard"', '["tensorboard", "tensorboard"]', "[nan]",
    "[1e-320]",
)  # fmt: skip
"""TOML texts in place of a value."""


def bad_json(rng: Random, path: Path) -> str:
    """Change one value, key or object of a JSON file."""
    changed, done = changed_json(rng, path.read_text())
    path.write_text(changed)
    return done


def bad_json_line(rng: Random, path: Path) -> str:
    """Change a line of a JSON-lines file."""
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    how = rng.choice(["value"] * 8 + ["repeated", "blank line", "not an object", "removed"])
    if how == "value":
        lines[number], how = changed_json(rng, lines[number])
    elif how == "repeated":
        lines.insert(number, lines[number])
    elif how == "blank line":
        lines.insert(number, " \t")
    elif how == "not an object":
        lines[number] = rng.choice(ODD)
    else:
        del lines[number]
    path.write_text("\n".join(lines) + rng.choice(["\n", ""]))
    return f"line {number + 1}: {how}"


def changed_json(rng: Random, text: str) -> tuple[str, str]:
    """Return a JSON text with one thing wrong, and what."""
    content = json.loads(text)
    levels = list(_places(content))
    if not levels:
        return rng.choice(ODD), "another value altogether"
    holder, key = rng.choice(rng.choice(levels))
    where = f"{key!r}"
    how = rng.choice(["replaced"] * 6 + ["removed", "key renamed", "key twice", "added", "deep", "whole"])
    if how in {"key renamed", "key twice"} and not isinstance(holder, dict):
        how = "removed"
    raw = MARK
    if how == "replaced":
        raw = rng.choice(ODD)
        holder[key] = MARK
    elif how == "deep":
        raw = rng.choice(["[", '{"a":']) * DEEP
        holder[key] = MARK
    elif how == "removed":
        del holder[key]
    elif how == "key renamed":
        holder[rng.choice(["", "x", "\ud800", key + " ", key.upper()])] = holder.pop(key)
    elif how == "key twice":
        holder[f"{MARK}{key}"] = None
    elif how == "added":
        holder.update({"extra": 1}) if isinstance(holder, dict) else holder.append(rng.choice([None, 1, "x", []]))
    else:
        return rng.choice(ODD), "another value altogether"
    changed = json.dumps(content).replace(f'"{MARK}"', raw).replace(MARK, "")
    return changed, f"{where} {how}{f' by {raw[:60]}' if raw is not MARK else ''}"


def bad_toml(rng: Random, path: Path) -> str:
    """Change a line of a TOML file."""
    lines = path.read_text().splitlines()
    settings = [number for number, line in enumerate(lines) if "=" in line or line.startswith("[")]
    number = rng.choice(settings)
    line = lines[number]
    how = rng.choice(["value"] * 6 + ["removed", "repeated", "key", "section"])
    if how == "value" and "=" in line:
        raw = rng.choice(ODD_TOML)
        lines[number] = f"{line.partition('=')[0]}= {raw}"
        how = f"value {raw[:60]}"
    elif how == "repeated":
        lines.insert(number, line)
    elif how == "key":
        lines[number] = rng.choice(["", "x", '"" = 1', "a.b.c", '"\\u0000" = 1', "dataset = 3", "ü = 1", "= 1"]) + line
    elif how == "section":
        lines[number] = rng.choice(["[model]", "[nothing]", "[[dataset]]", "[a.b.c.d]", "[", '[""]', "[dataset.name]"])
    else:
        del lines[number]
    path.write_text("\n".join(lines))
    return f"line {number + 1}: {how}"


def _places(content: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Yield for each depth of a tree its (container, key) pairs."""
    level = [content]
    while level:
        here = [
            (node, key)
            for node in level
            for key in (node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ())
        ]
        if here:
            yield here
        level = [node[key] for node, key in here]
