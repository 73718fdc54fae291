"""Finds and builds backbones by name. The table is ``mesm_core.config.backbones``. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mesm_core.backbones.protocol import Backbone, Precision
from mesm_core.config.backbones import BACKBONES, BackboneEntry
from mesm_core.errors import FeatureError, did_you_mean, listing

if TYPE_CHECKING:
    import torch

Build = Callable[[Path | None, "torch.device", Precision], Backbone]

PRECOMPUTED = {
    "vgg": "vgg.hdf5 (4096 wide, rows of 0.17 s), the features that UMT and QD-DETR published for Charades-STA",
    "i3d": "i3d.hdf5 (1024 wide), the features that VSLNet published for Charades-STA",
    "c3d": "c3d.hdf5 (4096 wide), the features that TALL and VSLNet published for TACoS",
}
"""Features that were published without weights or extraction code, so that they can only be read from files."""


def find_backbone(name: str) -> BackboneEntry:
    """Return the entry of a backbone.

    Raises:
        FeatureError: there is no backbone with that name.
    """
    if name.lower() in PRECOMPUTED:
        raise FeatureError(
            f"mesm does not extract {name} features: their exact weights or recipe were not published.",
            hint=f"Use the file {PRECOMPUTED[name.lower()]}; `mesm prepare npy2hdf5` writes it from .npy files.",
        )
    if name not in BACKBONES:
        raise FeatureError(
            f"No backbone is called '{name}'.{did_you_mean(name, BACKBONES)}", hint=f"Known: {listing(BACKBONES)}."
        )
    return BACKBONES[name]


def build_backbone(
    name: str, *, weights: Path | None = None, device: torch.device, precision: Precision | None = None
) -> Backbone:
    """Return a backbone, ready to encode.

    Args:
        weights: its weights file, if it needs one; precision: default fp16 on CUDA, fp32 on the CPU.

    Raises:
        FeatureError: there is no such backbone, or its weights are missing or do not fit.
    """
    from mesm_core.backbones.networks import default_precision

    entry = find_backbone(name)
    if entry.weights and weights is None:
        raise FeatureError(f"{name} needs a weights file.", hint=f"`mesm weights where {name}` shows which.")
    module, function = entry.build.split(":")
    build: Build = getattr(import_module(module), function)
    return build(weights, device, precision or default_precision(device))
