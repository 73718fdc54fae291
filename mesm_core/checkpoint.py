"""Checkpoint files (``.pt``): tensors and JSON-compatible values, loaded with ``weights_only=True``."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from mesm_core.checkpoint_content import check_content
from mesm_core.errors import CheckpointError, OutputError
from mesm_core.files import library_output, together, write_atomically
from mesm_core.inputs import open_zip, parse_json, read_text, reason, shown
from mesm_core.places import refuse_existing
from mesm_core.version import __version__

WEIGHTS, SETTINGS, REST = "model.safetensors", "config.json", "checkpoint.json"
FORMAT = "mesm-checkpoint"
VERSION = 1
DATA_STATISTICS, OLD_DATA_STATISTICS = "data_statistics", "facts"
"""Key of the data statistics, and its name in older checkpoints."""
_OPTIONAL = (DATA_STATISTICS, "calibration")
"""Parts that older checkpoints do not have."""
_GLOBAL = re.compile(r"nsupported (?:global: )?GLOBAL (\S+)")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that prediction needs and, in ``training``, everything that resuming needs.

    ``config``: the resolved settings; ``model``: weights by name; ``text``: the state of the text encoder;
    ``paths``: paths of the data at training; ``epoch``: number of completed epochs; ``metrics``: summary by split;
    ``training``: optimiser state and progress, empty in ``best.pt``; ``data_statistics``: statistics of the training
    data; ``calibration``: of the confidence, empty without one; ``warnings``: messages for the user about how the file
    was read, not stored; ``source``: the path that it was read from, not stored.
    """

    config: dict[str, Any]
    model: dict[str, torch.Tensor]
    text: Mapping[str, Any]
    paths: dict[str, Any]
    epoch: int
    metrics: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    data_statistics: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    source: Path | None = None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        OutputError: the file could not be written; an earlier file is unchanged.
    """
    stored = {name: getattr(checkpoint, name) for name in _stored()}
    content = {"format": FORMAT, "version": VERSION, "mesm": __version__, **stored}
    with library_output(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise OutputError(f"{path} could not be written: {reason}", hint="Is the disk full?") from error


def write_export(checkpoint: Checkpoint, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write a checkpoint as ``model.safetensors``, ``config.json`` and ``checkpoint.json``; return their paths.

    The first file contains the weights and, under ``text.…``, the tensors of the text encoder; the last file contains
    the rest. The folder can be used wherever mesm reads a checkpoint.

    Raises:
        OutputError: a file exists and ``overwrite`` is off, or one cannot be written; none is written then.
    """
    paths = export_files(folder)
    for path in paths:
        refuse_existing(path, overwrite=overwrite)
    tensors = {f"model.{name}": value.contiguous() for name, value in checkpoint.model.items()}
    text = {name: value for name, value in checkpoint.text.items() if not isinstance(value, torch.Tensor)}
    tensors |= {f"text.{name}": checkpoint.text[name].contiguous() for name in checkpoint.text if name not in text}
    rest = {
        "format": FORMAT,
        "version": VERSION,
        "mesm": __version__,
        "text": text,
        "paths": checkpoint.paths,
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        "data_statistics": checkpoint.data_statistics,
        "calibration": checkpoint.calibration,
    }
    with together():
        write_atomically(paths[0], safetensors.torch.save(tensors))
        write_atomically(paths[1], (json.dumps(checkpoint.config, indent=2) + "\n").encode())
        write_atomically(paths[2], (json.dumps(rest, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))
    return paths


def export_files(folder: Path) -> list[Path]:
    """Return the files that ``write_export`` writes to a folder."""
    return [folder / name for name in (WEIGHTS, SETTINGS, REST)]


def read_export(folder: Path) -> Checkpoint:
    """Read a checkpoint that ``write_export`` wrote.

    Raises:
        CheckpointError: a file is missing, damaged, or not part of an exported checkpoint.
    """
    hint = f"Such a folder has {WEIGHTS}, {SETTINGS} and {REST}; `mesm export` writes them."
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
    except Exception as error:  # raises errors of its reader and of torch besides its own
        raise CheckpointError(
            f"{folder} is not an exported checkpoint that mesm can read: {reason(error)}.", hint=hint
        ) from error
    config, rest = (
        parse_json(
            read_text(folder / name, error=CheckpointError, hint=hint),
            f"{folder} is not an exported checkpoint that mesm can read: its {name}",
            error=CheckpointError,
            surrogates=True,
        )
        for name in (SETTINGS, REST)
    )
    if not isinstance(rest, dict) or not isinstance(rest.get("text", {}), dict):
        raise CheckpointError(
            f"{folder} is not an exported checkpoint that mesm can read: its {REST} is malformed.", hint=hint
        )
    parts: dict[str, dict[str, Any]] = {"model": {}, "text": dict(rest.get("text", {}))}
    for name, value in tensors.items():
        part, _, rest_of_name = name.partition(".")
        parts.setdefault(part, {})[rest_of_name] = value
    content = rest | {"config": config, "model": parts["model"], "text": parts["text"], "training": {}}
    return checkpoint_from(content, folder)


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint of mesm, with tensors on the CPU. No code from the file is run.

    Raises:
        CheckpointError: the file is missing, damaged, or not a checkpoint of mesm.
    """
    return checkpoint_from(load_content(path), path)


def _checkpoint_in(folder: Path) -> Path:
    """Return the path of a checkpoint in the folder of a run, or of a family's first run."""
    below = sorted(folder.glob("*/best.pt"))
    return below[0] if below and not (folder / "best.pt").exists() else folder / "best.pt"


def load_content(path: Path) -> Any:
    """Load the content of a checkpoint file: tensors and plain values only.

    Raises:
        CheckpointError: the file is missing, damaged, or asks for code to be run.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder.", hint=f"Did you mean {_checkpoint_in(path)}?")
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}.", hint="`mesm train` writes best.pt and last.pt.")
    try:
        if zipfile.is_zipfile(path):
            with open_zip(path, error=CheckpointError, stored=True):
                pass
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch's reader may raise any exception for a damaged file
        refused = _GLOBAL.search(str(error))
        if refused:
            raise CheckpointError(
                f"{path} refers to {refused[1]}, which no checkpoint needs: it was not loaded.",
                hint="Do not trust this file: loading it the usual way could run its code.",
            ) from error
        # torch's messages describe its reader's internals, and suggest loading without weights_only.
        known = isinstance(error, MemoryError | RecursionError) or getattr(error, "strerror", None)
        why = reason(error) if known else "it is damaged, cut short, or not a checkpoint"
        raise CheckpointError(
            f"{path} is not a checkpoint that mesm can read: {why}.",
            hint="Give a best.pt or last.pt that `mesm train` wrote; copy a truncated file again.",
        ) from error


def checkpoint_from(content: Any, path: Path) -> Checkpoint:
    """Check the content of a file, and return it as a checkpoint.

    Raises:
        CheckpointError: the content is not a checkpoint of mesm, has a newer version, is incomplete, has a part of the
            wrong type, or has weights that are NaN or infinite.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a mesm checkpoint.", hint="Give a best.pt or last.pt that `mesm train` wrote."
        )
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer mesm ({shown(content.get('mesm'))}).",
            hint="Install that version, or a later one.",
        )
    if OLD_DATA_STATISTICS in content:
        content = {DATA_STATISTICS: content[OLD_DATA_STATISTICS]} | content
    names = _stored()
    absent = [name for name in ("version", *names) if name not in content and name not in _OPTIONAL]
    if absent:
        raise CheckpointError(f"{path} is a mesm checkpoint without {', '.join(absent)}: it is damaged.")
    check_content(content, path)
    return Checkpoint(**{name: content[name] for name in names if name in content})


def weights_hash(model: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a model's weights and their names, shapes and types."""
    digest = sha256()
    for name in sorted(model):
        value = model[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _stored() -> list[str]:
    return [name for name in Checkpoint.__dataclass_fields__ if name not in ("warnings", "source")]
