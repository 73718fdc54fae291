"""CLIP's image tower, a frozen vision transformer (Radford et al. 2021); parameters have OpenAI's names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.errors import FeatureError

HEAD_WIDTH = 64
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
PREFIX = "visual."


class _Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, width) to (B, L, width)."""
        batch, length, width = x.shape
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, L, 3·width)
        q, k, v = packed.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, heads, L, width / heads)
        out: Tensor = self.out_proj(attended.transpose(1, 2).reshape(batch, length, width))
        return out


class _Block(nn.Module):
    """Pre-norm self-attention and a feed-forward of four times the width with QuickGELU, x · sigmoid(1.702 x)."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width=width, heads=heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, width) to (B, L, width)."""
        x = x + self.attn(self.ln_1(x))
        hidden = self.mlp["c_fc"](self.ln_2(x))
        out: Tensor = x + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))
        return out


class ClipImageTransformer(nn.Module):
    """The image tower: patches and a class token through pre-norm blocks; the class token is projected.

    Args:
        side, patch: sides of the pictures and of the patches, in pixels; width, layers, heads: of the transformer.
        out: width of the features.
    """

    def __init__(self, *, side: int, patch: int, width: int, layers: int, heads: int, out: int) -> None:
        super().__init__()
        self.side = side
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((side // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        blocks = [_Block(width=width, heads=heads) for _ in range(layers)]
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*blocks)})
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, out))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features (B, out), not normalised, of pictures (B, 3, side, side) from ``normalised``."""
        patches = self.conv1(pictures).flatten(2).transpose(1, 2)  # (B, P, width)
        token = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([token, patches], dim=1) + self.positional_embedding)  # (B, P + 1, width)
        x = self.transformer["resblocks"](x)
        features: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return features

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], *, heads: int | None = None) -> ClipImageTransformer:
        """Return the tower with weights under OpenAI's names (``visual.…``), in evaluation mode and float32.

        Raises:
            FeatureError: the weights are not those of an image tower that is a vision transformer.
        """
        own = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
        try:
            width, _, patch, _ = own["conv1.weight"].shape
            positions = len(own["positional_embedding"])
            out = own["proj"].shape[1]
        except (KeyError, ValueError, IndexError) as error:
            raise FeatureError(
                f"These weights are not a CLIP image encoder with a vision transformer: {error}."
            ) from error
        layers = len({name.split(".")[2] for name in own if name.startswith("transformer.resblocks.")})
        heads = heads or max(width // HEAD_WIDTH, 1)
        side = round((positions - 1) ** 0.5) * patch
        if width % heads or (side // patch) ** 2 + 1 != positions:
            raise FeatureError(
                f"These weights are not a CLIP image encoder: width {width}, {heads} heads, {positions} positions."
            )
        model = cls(side=side, patch=patch, width=width, layers=layers, heads=heads, out=out)
        try:
            model.load_state_dict({name: value.float() for name, value in own.items()})
        except RuntimeError as error:
            raise FeatureError(f"These weights are not a CLIP image encoder: {error}") from error
        return model.eval().requires_grad_(False)


def normalised(pictures: Tensor) -> Tensor:
    """Return the tower's input (B, 3, H, W) float32, normalised, of pictures (B, H, W, 3) uint8 RGB."""
    scaled = pictures.permute(0, 3, 1, 2).float().div(255)
    mean, std = (torch.tensor(value, device=pictures.device).view(3, 1, 1) for value in (MEAN, STD))
    return (scaled - mean) / (std + 1e-8)
