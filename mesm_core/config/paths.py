"""Paths among the settings: relative to the file they stand in; on the command line, to the working folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ALWAYS = ("dataset.annotations", "dataset.features", "dataset.videos", "text.glove", "text.clip")
# A bare name is a file in the annotations' folder; one with a separator is a path.
IN_ANNOTATIONS = ("text.vocabulary", "text.counts")
# A bare name is a split; a path, or a name that ends in .jsonl, is a file of its own.
SPLITS = ("dataset.train", "dataset.eval", "dataset.paper_eval")
JSON_LINES = ".jsonl"


def anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of one place with the paths among them made absolute, relative ones below ``folder``.

    >>> anchored({"dataset": {"features": ["a.h5", "/b.h5"], "train": "train", "eval": "v.jsonl"}}, Path("/x"))
    {'dataset': {'features': ['/x/a.h5', '/b.h5'], 'train': 'train', 'eval': '/x/v.jsonl'}}
    """
    return {
        section: {key: _anchored(f"{section}.{key}", value, folder) for key, value in content.items()}
        if isinstance(content, dict)
        else content
        for section, content in values.items()
    }


def below(root: Path, path: Path) -> str:
    """Return a path as the settings keep it: relative where it lies below the data folder ``root``, else absolute.

    >>> below(Path("/data"), Path("/data/TACoS/c3d.hdf5")), below(Path("/data"), Path("/x/c3d.hdf5"))
    ('TACoS/c3d.hdf5', '/x/c3d.hdf5')
    """
    full, top = Path(absolute(path)), Path(absolute(root))
    return str(full.relative_to(top)) if full.is_relative_to(top) else str(full)


def absolute(path: Path) -> str:
    """Return the absolute form of a path, ``~`` expanded and ``..`` taken out; links stay as they are."""
    return os.path.abspath(path.expanduser())  # noqa: PTH100 - resolve() would follow links


def _anchored(key: str, value: Any, folder: Path) -> Any:
    if isinstance(value, list | tuple):
        return [_anchored(key, item, folder) for item in value]
    if not isinstance(value, str) or not _is_path(key, value):
        return value
    return absolute(folder / Path(value).expanduser())


def _is_path(key: str, value: str) -> bool:
    separated = "/" in value or os.sep in value
    return (
        key in ALWAYS
        or (separated and key in IN_ANNOTATIONS)
        or (key in SPLITS and (separated or value.endswith(JSON_LINES)))
    )
