"""The table of backbones, one line each. Imports no torch before a network is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mesm_core.backbones.pixels import NOTE, Pixels
from mesm_core.backbones.protocol import SIDE, Backbone, Precision
from mesm_core.config.own_videos import FEATURE_FILES
from mesm_core.errors import FeatureError, did_you_mean, listing

if TYPE_CHECKING:
    import torch

Build = Callable[[Path | None, "torch.device", Precision], Backbone]


@dataclass(frozen=True, slots=True)
class Entry:
    """A backbone: ``file``: name of the feature file that presets expect; ``width``: of the features;
    ``weights``: whether it needs a weights file; ``build``: builds it; ``note``: shown whenever it is used."""

    file: str
    width: int
    weights: bool
    build: Build
    note: str = ""


def _clip(path: Path | None, device: torch.device, precision: Precision) -> Backbone:
    from mesm_core.backbones.clip_image import ClipImageTransformer
    from mesm_core.backbones.networks import ClipB32
    from mesm_core.text.clip_weights import read_clip_image

    assert path is not None
    model = ClipImageTransformer.from_weights(read_clip_image(path))
    if model.side != SIDE or model.conv1.kernel_size != (32, 32):
        raise FeatureError(
            f"{path} is not ViT-B/32: its pictures have {model.side} pixels a side and patches of "
            f"{model.conv1.kernel_size[0]}.",
            hint="Give the weights of ViT-B/32.",
        )
    return ClipB32(model, device=device, precision=precision)


def _slowfast(path: Path | None, device: torch.device, precision: Precision, *, pytorchvideo: bool = False) -> Backbone:
    from mesm_core.backbones.networks import SlowFastR50
    from mesm_core.backbones.slowfast import SlowFast
    from mesm_core.backbones.slowfast_weights import read_slowfast

    assert path is not None
    model = SlowFast()
    model.load_state_dict(read_slowfast(path, pytorchvideo=pytorchvideo), strict=False)
    name = "slowfast-r50-pytorchvideo" if pytorchvideo else "slowfast-r50"
    return SlowFastR50(model, device=device, precision=precision, name=name)


def _slowfast_pytorchvideo(path: Path | None, device: torch.device, precision: Precision) -> Backbone:
    return _slowfast(path, device, precision, pytorchvideo=True)


def _pixels(path: Path | None, device: torch.device, precision: Precision) -> Backbone:
    return Pixels()


BACKBONES = {
    "clip-b32": Entry(*FEATURE_FILES["clip-b32"], True, _clip),
    "slowfast-r50": Entry(*FEATURE_FILES["slowfast-r50"], True, _slowfast),
    "slowfast-r50-pytorchvideo": Entry(*FEATURE_FILES["slowfast-r50-pytorchvideo"], True, _slowfast_pytorchvideo),
    "pixels": Entry(*FEATURE_FILES["pixels"], False, _pixels, NOTE),
}


PRECOMPUTED = {
    "vgg": "vgg.hdf5 (4096 wide, rows of 0.17 s), the features that UMT and QD-DETR published for Charades-STA",
    "i3d": "i3d.hdf5 (1024 wide), the features that VSLNet published for Charades-STA",
    "c3d": "c3d.hdf5 (4096 wide), the features that TALL and VSLNet published for TACoS",
}
"""Features that were published without weights or extraction code, so that they can only be read from files."""


def find_backbone(name: str) -> Entry:
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
    return entry.build(weights, device, precision or default_precision(device))
