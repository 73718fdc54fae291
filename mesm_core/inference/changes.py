"""Applies a user's changes to the settings of a checkpoint, and refuses settings that training has fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mesm_core.config.load import Layer, file_layer, flatten, resolve, set_layer
from mesm_core.config.schema import Config
from mesm_core.errors import ConfigError, listing

CHANGEABLE = ("dataset.max_frames", "dataset.videos", "model.fast", "eval.", "data.")


def changed_config(
    stored: Mapping[str, Any], *, source: str, file: Path | None = None, overrides: Sequence[str] = ()
) -> Config:
    """Return a checkpoint's settings with a user's changes, which are limited to ``CHANGEABLE``.

    Args:
        stored: the checkpoint's settings; source: its path, for messages.
        file: TOML file or a run's ``config.json``; it may repeat any setting of the checkpoint.
        overrides: ``section.key=value`` arguments, which override the file.

    Raises:
        ConfigError: other settings would change (the message lists them), or a key or value is invalid.
    """
    below = [Layer(source, dict(stored))]
    own = resolve(below)
    if file is not None:
        below.append(file_layer(file))
    with_file = resolve(below)
    before = dict(flatten(own.model_dump()))
    changed = [key for key, value in flatten(with_file.model_dump()) if value != before.get(key)]
    _refuse_fixed(changed, where=str(file))
    words = set_layer(overrides)
    config = resolve([*below, words])
    _refuse_fixed([key for key, _ in flatten(words.values)], where="--set")
    return config


def _refuse_fixed(keys: Sequence[str], *, where: str) -> None:
    fixed = [key for key in keys if not key.startswith(CHANGEABLE)]
    if fixed:
        raise ConfigError(
            f"{where} changes {listing(fixed)}: a checkpoint's settings are fixed, except dataset.max_frames, "
            "dataset.videos, model.fast, eval.… and data.….",
            hint="To change other settings, train again.",
        )
