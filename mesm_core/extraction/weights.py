"""Finds the weights file of a backbone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from mesm_core.backbones.registry import find_backbone
from mesm_core.backbones.weights import require_weights
from mesm_core.config.load import DATA_ROOT
from mesm_core.errors import FeatureError, did_you_mean, listing


def weights_of(name: str, given: Mapping[str, Path], *, root: Path | None = None) -> Path | None:
    """Return the weights file of a backbone: the given one, else the one that `mesm weights where` finds.

    Args:
        root: the data folder, which is searched, too; default: ./data.

    Returns:
        The file, or None for a backbone without weights.

    Raises:
        FeatureError: the backbone is unknown, or its weights are not found.
    """
    if not find_backbone(name).weights:
        return None
    if name in given:
        return given[name]
    try:
        return require_weights(name, root=root or DATA_ROOT)
    except FeatureError as error:
        raise FeatureError(error.message, hint=f"{error.hint} Or give the file: --weights {name}=FILE.") from error


def refuse_unused(given: Mapping[str, Path], names: Collection[str]) -> None:
    """Raise FeatureError if weights are given for a name that is not in ``names``."""
    unused = [name for name in given if name not in names]
    if unused:
        raise FeatureError(
            f"--weights {unused[0]}={given[unused[0]]}: {unused[0]} is not used here.{did_you_mean(unused[0], names)}",
            hint=f"Used: {listing(names) or 'no weights'}.",
        )
