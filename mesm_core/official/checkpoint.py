"""Checkpoints of the published implementation, and one function that loads them or ours."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mesm_core.build import ENDPOINT_CHANNELS, build_model, refuse_larger
from mesm_core.checkpoint import WEIGHTS, Checkpoint, checkpoint_from, export_files, load_content, read_export
from mesm_core.checkpoint_content import check_weights, is_sound
from mesm_core.errors import CheckpointError
from mesm_core.inputs import read_json, shown
from mesm_core.official.config import config_from_flags, flag_warnings
from mesm_core.official.names import rename

_WIDTH_OF = "input_vid_proj.0.LayerNorm.weight"


def load_any_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint of mesm (``.pt`` or exported), or of the published code (``model_test_best.ckpt``).

    Published files contain no text encoder and no paths, so ``text`` and ``paths`` are empty. Flags without effect here
    are listed in ``warnings``. Besides tensors and plain values, only ``argparse.Namespace`` is unpickled; no code is
    run.

    Raises:
        CheckpointError: the file is missing, damaged, or neither kind of checkpoint.
        ConfigError: its dataset is unknown, or its flags require a computation that is not supported.
    """
    return replace(_load(path), source=path)


def _load(path: Path) -> Checkpoint:
    if (path / WEIGHTS).is_file():
        return read_export(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = load_content(path)
    weights = content.get("model") if isinstance(content, dict) else None
    if isinstance(weights, dict) and _WIDTH_OF in weights:
        return _from_official(content, weights, path)
    return checkpoint_from(content, path)


def checkpoint_files(path: Path) -> list[Path]:
    """Return the files that ``load_any_checkpoint`` may read."""
    if path.is_dir():
        return export_files(path)
    return [path, path.with_name("opt.json")] if path.suffix == ".ckpt" else [path]


def _from_official(content: Mapping[str, Any], weights: Mapping[Any, Any], path: Path) -> Checkpoint:
    weights = {name: value for name, value in weights.items() if isinstance(name, str)}
    flags, source = _flags(content, path)
    width = _input_width(weights, path)
    video_dim = width - ENDPOINT_CHANNELS
    given_width = flags.get("v_feat_dim", width)
    config = config_from_flags(flags, source=source, video_dim=video_dim)
    # opt.json has the width of the features; the flags in the checkpoint add the endpoint channels.
    if given_width not in (video_dim, width):
        raise CheckpointError(
            f"{source} has v_feat_dim {given_width}, but the weights of {path} take features {video_dim} wide.",
            hint="Does its opt.json belong to another run?",
        )
    tensors = {name: value for name, value in weights.items() if is_sound(value)}
    refuse_larger(config, tensors, classes=config.text.classes)
    expected = build_model(config.model, classes=config.text.classes, max_words=config.dataset.max_words).state_dict()
    renamed = rename(weights, keep=expected)
    missing = [name for name in expected if name not in renamed]
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the {len(expected)} weights that its settings require, e.g. {missing[0]}.",
            hint="Does its opt.json belong to another run?",
        )
    check_weights(renamed, path)
    epoch = content.get("epoch") or 0
    if not isinstance(epoch, int):
        raise CheckpointError(f"{path} is damaged: its epoch is {shown(epoch)}, not a number.")
    return Checkpoint(
        config=config.model_dump(mode="json"),
        model=renamed,
        text={},
        paths={},
        epoch=epoch + 1,
        metrics={},
        warnings=flag_warnings(flags, source=source),
    )


def _input_width(weights: Mapping[str, Any], path: Path) -> int:
    """Return the input width of the first projection: the width of the features plus the endpoint channels."""
    first = weights[_WIDTH_OF]
    if not is_sound(first) or first.dim() != 1 or len(first) <= ENDPOINT_CHANNELS:
        raise CheckpointError(f"{path} is damaged: its weights '{_WIDTH_OF}' are not a vector of features.")
    return len(first)


def _flags(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], str]:
    """Return the flags of the run, from the checkpoint or else from its ``opt.json``, and the path of their file."""
    options = content.get("opt")
    if isinstance(options, argparse.Namespace):
        return _checked(vars(options), path), str(path)
    if isinstance(options, dict):
        return _checked(options, path), str(path)
    options_file = path.with_name("opt.json")
    if not options_file.is_file():
        raise CheckpointError(f"{path} holds no settings.", hint="Put the run's opt.json in the same folder.")
    return _checked(read_json(options_file, error=CheckpointError, surrogates=True), options_file), str(options_file)


def _checked(flags: Any, path: Path) -> dict[str, Any]:
    """Check that flags are a mapping by name. Their values are checked when they become settings.

    Raises:
        CheckpointError: they are not a mapping by name.
    """
    if not isinstance(flags, dict) or not all(isinstance(name, str) for name in flags):
        raise CheckpointError(f"{path} holds {type(flags).__name__}, not flags by name.")
    return flags
