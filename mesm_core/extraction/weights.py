"""Which file of weights a backbone is built from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mesm_core.backbones.registry import find_backbone
from mesm_core.errors import FeatureError


def weights_of(name: str, given: Mapping[str, Path]) -> Path | None:
    """Return the file of weights that is given for a backbone, or None for a backbone that has none.

    Raises:
        FeatureError: there is no such backbone, or it needs weights and none are given.
    """
    if not find_backbone(name).weights:
        return None
    if name not in given:
        raise FeatureError(f"{name} needs a file of weights.", hint=f"Give it: --weights {name}=FILE.")
    return given[name]
