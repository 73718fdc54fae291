"""The published implementation's flags as our settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesm_core.config.load import FIELD_NAMES
from mesm_core.config.schema import LossConfig, ModelConfig


def sections(flags: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the flags that we have settings for, by section.

    >>> sections({"nheads": 4, "recss_tau": 0.5, "exp_id": "x"})
    {'model': {'heads': 4}, 'loss': {'tau': 0.5}}
    """
    result: dict[str, dict[str, Any]] = {}
    for flag, value in flags.items():
        key = FIELD_NAMES.get(flag.lower()) or _same_name(flag)
        if key is not None:
            section, _, name = key.partition(".")
            result.setdefault(section, {})[name] = value
    return result


def _same_name(flag: str) -> str | None:
    for section, schema in (("model", ModelConfig), ("loss", LossConfig)):
        if flag in schema.model_fields:
            return f"{section}.{flag}"
    return {"aux_loss": "loss.aux"}.get(flag)
