"""A CLIP ViT-B/32 with random weights: both towers and the projections, far smaller than the real one, or as large."""

from __future__ import annotations

from pathlib import Path

import torch

from mesm_core.backbones.clip_image import ClipImageTransformer
from mesm_core.text.clip import ClipTextTransformer
from mesm_core.text.clip_weights import PROJECTION

OUT = 512


def write_clip(path: Path, *, seed: int = 0, image: tuple[int, int] = (64, 1), text: tuple[int, int] = (16, 1)) -> Path:
    """Write the weights by OpenAI's names, in float16.

    Args:
        image, text: width and layers of each tower; OpenAI's are (768, 12) and (512, 12).
    """
    torch.manual_seed(seed)
    seer = ClipImageTransformer(
        side=224, patch=32, width=image[0], layers=image[1], heads=max(image[0] // 64, 1), out=OUT
    )
    reader = ClipTextTransformer(
        vocabulary=49408, context=77, width=text[0], layers=text[1], heads=max(text[0] // 64, 1)
    )
    for model in (seer, reader):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    weights = {f"visual.{name}": value for name, value in seer.state_dict().items()}
    weights |= reader.state_dict() | {PROJECTION: torch.randn(text[0], OUT)}
    torch.save({name: value.half() for name, value in weights.items()}, path)
    return path
