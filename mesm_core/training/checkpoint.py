"""One ``.pt`` a checkpoint: tensors and JSON-able values, read with ``weights_only=True``."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mesm_core import __version__
from mesm_core.data.files import replacing
from mesm_core.errors import CheckpointError

FORMAT = "mesm-checkpoint"
VERSION = 1
_GLOBAL = re.compile(r"nsupported (?:global: )?GLOBAL (\S+)")


@dataclass(frozen=True)
class Checkpoint:
    """All that prediction needs, and in ``training`` all that resuming needs.

    ``config``: the resolved settings; ``model``: weights by name; ``text``: the text encoder's state;
    ``paths``: where the data lay at training; ``epoch``: epochs done; ``metrics``: summary by split;
    ``training``: optimiser state and bookkeeping, empty in ``best.pt``.
    """

    config: dict[str, Any]
    model: dict[str, torch.Tensor]
    text: Mapping[str, Any]
    paths: dict[str, Any]
    epoch: int
    metrics: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, whole or not at all."""
    content = {"format": FORMAT, "version": VERSION, "mesm": __version__, **vars(checkpoint)}
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint of ours, its tensors on the CPU; no code from the file is run.

    Raises:
        CheckpointError: the file is missing, damaged, or not ours.
    """
    return checkpoint_from(load_content(path), path)


def load_content(path: Path) -> Any:
    """Return what a checkpoint file holds: tensors and plain values only.

    Raises:
        CheckpointError: the file is missing, damaged, or asks for code to be run.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder.", hint=f"Did you mean {path / 'best.pt'}?")
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}.", hint="`mesm train` writes best.pt and last.pt.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        refused = _GLOBAL.search(str(error))
        if refused:
            raise CheckpointError(
                f"{path} asks for {refused[1]}, which no checkpoint needs: it was not loaded.",
                hint="Do not trust this file: loading it the usual way could run its code.",
            ) from error
        # torch's own message for other damage advises to load without weights_only: do not pass that on.
        known = not isinstance(error, pickle.UnpicklingError) and str(error)
        reason = str(error).splitlines()[0] if known else "it is damaged, or no checkpoint at all"
        raise CheckpointError(
            f"{path} is not a checkpoint that mesm can read: {reason[:200]}",
            hint="Give a best.pt or last.pt that `mesm train` wrote; a file that was cut short must be copied again.",
        ) from error


def checkpoint_from(content: Any, path: Path) -> Checkpoint:
    """Return the checkpoint that a file's content is.

    Raises:
        CheckpointError: it is none of ours, of a newer version, or incomplete.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a mesm checkpoint.", hint="Give a best.pt or last.pt that `mesm train` wrote."
        )
    if content["version"] > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer mesm ({content['mesm']}).", hint="Install that version, or a later one."
        )
    names = Checkpoint.__dataclass_fields__
    absent = [name for name in names if name not in content]
    if absent:
        raise CheckpointError(f"{path} is a mesm checkpoint without {', '.join(absent)}: it is damaged.")
    return Checkpoint(**{name: content[name] for name in names})
