"""Paths in settings: relative to the file that contains them or, on the command line, to the working folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ALWAYS = ("dataset.annotations", "dataset.features", "dataset.videos", "text.glove", "text.clip")
# A bare name is a file in the annotations' folder; one with a separator is a path.
IN_ANNOTATIONS = ("text.vocabulary", "text.counts")
# A bare name is a split; a path, or a name that ends in .jsonl, is a file.
SPLITS = ("dataset.train", "dataset.eval", "dataset.paper_eval")
JSON_LINES = ".jsonl"


def anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings with absolute paths; relative paths are resolved against ``folder``.

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
    """Return a path as stored in settings: relative if it is below the data folder ``root``, else absolute.

    >>> below(Path("/data"), Path("/data/TACoS/c3d.hdf5")), below(Path("/data"), Path("/x/c3d.hdf5"))
    ('TACoS/c3d.hdf5', '/x/c3d.hdf5')
    """
    full, top = Path(absolute(path)), Path(absolute(root))
    return str(full.relative_to(top)) if full.is_relative_to(top) else str(full)


def absolute(path: Path) -> str:
    """Return the absolute form of a path, with ``~`` expanded and ``..`` removed. Links are not followed."""
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
