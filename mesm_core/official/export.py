"""Export of checkpoints to the format of the published implementation."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mesm_core.build import ENDPOINT_CHANNELS, build_model
from mesm_core.checkpoint import Checkpoint
from mesm_core.config.load import Layer, flatten, resolve
from mesm_core.config.schema import Config
from mesm_core.files import library_output, together, write_atomically
from mesm_core.official.config import config_from_flags, flags_of
from mesm_core.official.names import to_official
from mesm_core.places import is_stream, refuse_existing

OPTIONS = "opt.json"
_POSITIONS = "txt_position_embed."


def export_official(checkpoint: Checkpoint, path: Path, *, overwrite: bool = False) -> list[Path]:
    """Write ``path`` (a ``.ckpt``) and an ``opt.json`` in the same folder, and return both paths.

    Like published files, the checkpoint contains no text encoder, and ``v_feat_dim`` counts the two endpoint channels
    in the checkpoint's flags but not in ``opt.json``. ``settings_lost`` returns the settings that the format cannot
    express.

    Raises:
        OutputError: a file exists and ``overwrite`` is off, or one cannot be written; none is written then.
    """
    files = official_files(path)
    for file in files:
        refuse_existing(file, overwrite=overwrite)
    config = resolve([Layer("checkpoint", checkpoint.config)])
    flags = flags_of(config, checkpoint.paths)
    content = {
        "model": official_weights(config, checkpoint.model),
        "epoch": max(checkpoint.epoch - 1, 0),
        "opt": argparse.Namespace(**flags | {"v_feat_dim": flags["v_feat_dim"] + ENDPOINT_CHANNELS}),
    }
    with together():
        for options in files[1:]:
            write_atomically(options, (json.dumps(flags, indent=4) + "\n").encode())
        with library_output(path) as output:
            torch.save(content, output)
    return files


def official_files(path: Path) -> list[Path]:
    """Return the files that ``export_official`` writes: ``path`` and, unless it is a stream, ``opt.json``."""
    return [path] if is_stream(path) else [path, path.parent / OPTIONS]


def settings_lost(checkpoint: Checkpoint) -> list[str]:
    """Return the settings that are lost in the published format, as ``key = value``.

    The format has no flags for them, so a reader assumes the preset's values.
    """
    config = resolve([Layer("checkpoint", checkpoint.config)])
    again = config_from_flags(flags_of(config, checkpoint.paths), source=OPTIONS)
    usual = dict(flatten(again.model_dump(mode="json")))
    kept = flatten(config.model_dump(mode="json"))
    return [f"{key} = {value}" for key, value in kept if usual.get(key) != value]


def official_weights(config: Config, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under official names, with placeholders for weights that the published code does not use."""
    named = {to_official(name): value for name, value in weights.items()}
    words = config.dataset.max_words + int(config.model.segment_sentence)
    width = config.model.hidden_dim
    unused = {
        f"{_POSITIONS}position_embeddings.weight": torch.zeros(words, width),
        f"{_POSITIONS}LayerNorm.weight": torch.ones(width),
        f"{_POSITIONS}LayerNorm.bias": torch.zeros(width),
    }
    if not config.model.frame_word:
        with_frame_word = config.model.model_copy(update={"frame_word": True})
        fresh = build_model(with_frame_word, classes=1, max_words=config.dataset.max_words).state_dict()
        encoder = {name: value for name, value in fresh.items() if name.startswith("frame_word.encoder.")}
        unused |= {to_official(name): value for name, value in encoder.items()}
    return unused | named
