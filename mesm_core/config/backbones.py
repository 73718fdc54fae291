"""The table of backbones, one line each. Imports no backbone: presets need the names and widths of feature files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackboneEntry:
    """A backbone.

    ``file``: name of the feature file that presets expect; ``width``: of the features; ``build``: ``"module:function"``
    of the function that builds it; ``weights``: whether it needs a weights file; ``note``: shown whenever it is used.
    """

    file: str
    width: int
    build: str
    weights: bool = True
    note: str = ""


_PIXELS = "pixels describes colours, edges and change only: it is for demonstrations and tests, not for real search."
_NETWORKS = "mesm_core.backbones.networks"

BACKBONES = {
    "clip-b32": BackboneEntry("clip_image.hdf5", 512, f"{_NETWORKS}:clip_b32"),
    "slowfast-r50": BackboneEntry("slowfast.hdf5", 2304, f"{_NETWORKS}:slowfast_r50"),
    "slowfast-r50-pytorchvideo": BackboneEntry("slowfast_pytorchvideo.hdf5", 2304, f"{_NETWORKS}:slowfast_other"),
    "pixels": BackboneEntry("pixels.hdf5", 256, "mesm_core.backbones.pixels:build", weights=False, note=_PIXELS),
}
