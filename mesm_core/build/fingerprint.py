"""The files that a training run reads, with hashes of their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesm_core.build.encoders import find_encoder
from mesm_core.build.paths import Paths
from mesm_core.caches import default_notes, hash_file
from mesm_core.config.schema import Config
from mesm_core.data.readers import annotation_files
from mesm_core.data.splits import named_split
from mesm_core.errors import OutputError

Files = Mapping[str, Mapping[str, Any]]
"""By role, e.g. ``feature file 1``: ``path``, ``bytes`` and ``sha256`` of a file."""


def files_by_role(config: Config, paths: Paths, *, init: list[Path] | None = None) -> dict[str, Path]:
    """Return the existing files that training reads, by their role.

    Args:
        init: files of the checkpoint with the initial weights.
    """
    splits = dict.fromkeys(named_split(config.dataset, name) for name in (config.dataset.train, *config.select_splits))
    groups = {
        "annotation file": annotation_files(config.dataset.name, paths.annotations, splits),
        "feature file": list(paths.features),
        "file of initial weights": init or [],
    }
    roles = {f"{kind} {number}": path for kind, files in groups.items() for number, path in enumerate(files, start=1)}
    roles["text file"] = paths.text
    if find_encoder(config.text.encoder).needs_counts:
        roles["count file"] = paths.annotations / config.text.counts
    return {role: path for role, path in roles.items() if path.is_file()}


def hash_files(roles: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return path, size and SHA-256 of each file. Files that have not changed since they were last hashed are not read.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        read = default_notes().content_hash
    except OutputError:  # without a home folder nothing is noted
        read = hash_file
    found = {}
    for role, path in roles.items():
        digest = read(path)
        found[role] = {"path": str(path.resolve()), "bytes": path.stat().st_size, "sha256": digest}
    return found


def differing_files(before: Files, now: Files) -> list[str]:
    """Return a message for each file whose content is not that of the earlier run, or that only one of them reads.

    >>> old = {"text file": {"path": "/a/glove.txt", "bytes": 3, "sha256": "1"}}
    >>> differing_files(old, {"text file": {"path": "/b/glove.txt", "bytes": 3, "sha256": "1"}})
    []
    >>> differing_files(old, {"text file": {"path": "/b/glove.txt", "bytes": 4, "sha256": "2"}})
    ['text file: /b/glove.txt (4 bytes) is not /a/glove.txt (3 bytes)']
    >>> differing_files(old, {})
    ['text file: /a/glove.txt (3 bytes) is missing']
    """
    messages = []
    for role in dict.fromkeys([*before, *now]):
        old, new = before.get(role), now.get(role)
        if old is None and new is not None:
            messages.append(f"{role}: {_named(new)} was not there")
        elif old is not None and new is None:
            messages.append(f"{role}: {_named(old)} is missing")
        elif old is not None and new is not None and old["sha256"] != new["sha256"]:
            messages.append(f"{role}: {_named(new)} is not {_named(old)}")
    return messages


def _named(file: Mapping[str, Any]) -> str:
    return f"{file['path']} ({file['bytes']} bytes)"
