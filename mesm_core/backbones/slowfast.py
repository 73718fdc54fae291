"""SlowFast R50 8×8 (Feichtenhofer et al. 2019), a frozen feature extractor; parameters have PySlowFast's names.

The slow pathway sees 8 frames with many channels, the fast one 32 frames with an eighth of them. After each of the
first four stages the fast pathway's features are strided in time and appended to the slow pathway's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mesm_core.backbones.slowfast_sampling import SLOW_INDEX

BETA = 8
"""The fast pathway is this many times narrower than the slow one."""
ALPHA = 4
"""The fast pathway has this many times as many frames."""
BLOCKS = (3, 4, 6, 3)
TEMPORAL_KERNELS = ((1, 3), (1, 3), (3, 3), (3, 3))
"""Length in frames of the first convolution of each stage's blocks: slow, fast."""
MEAN, STD = 0.45, 0.225


class Stem(nn.Module):
    """A convolution of k×7×7 over (B, 3, T, H, W), and max-pooling: a quarter of the height and width."""

    def __init__(self, *, out: int, temporal_kernel: int) -> None:
        super().__init__()
        kernel, padding = (temporal_kernel, 7, 7), (temporal_kernel // 2, 3, 3)
        self.conv = nn.Conv3d(3, out, kernel, stride=(1, 2, 2), padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(out)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, T, H/4, W/4)."""
        pooled: Tensor = self.pool(self.bn(self.conv(x)).relu_())
        return pooled


class Fuse(nn.Module):
    """Appends the fast pathway's features, strided in time, to the slow pathway's channels."""

    def __init__(self, *, fast: int) -> None:
        super().__init__()
        self.conv_f2s = nn.Conv3d(fast, 2 * fast, (7, 1, 1), stride=(ALPHA, 1, 1), padding=(3, 0, 0), bias=False)
        self.bn = nn.BatchNorm3d(2 * fast)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Return (B, Cs + 2·Cf, T, H, W) from slow (B, Cs, T, H, W) and fast (B, Cf, 4·T, H, W)."""
        return torch.cat([slow, self.bn(self.conv_f2s(fast)).relu_()], dim=1)


class Bottleneck(nn.Module):
    """Convolutions k×1×1, 1×3×3 (which carries the stride) and 1×1×1, each followed by a BatchNorm."""

    def __init__(self, *, dim: int, inner: int, out: int, temporal_kernel: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv3d(dim, inner, (temporal_kernel, 1, 1), padding=(temporal_kernel // 2, 0, 0), bias=False)
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = nn.Conv3d(inner, inner, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)
        self.b_bn = nn.BatchNorm3d(inner)
        self.c = nn.Conv3d(inner, out, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, T, H/stride, W/stride)."""
        x = self.a_bn(self.a(x)).relu_()
        x = self.b_bn(self.b(x)).relu_()
        out: Tensor = self.c_bn(self.c(x))
        return out


class ResBlock(nn.Module):
    """A bottleneck with a shortcut; the first block of a stage projects the shortcut."""

    def __init__(self, *, dim: int, inner: int, out: int, temporal_kernel: int, stride: int, first: bool) -> None:
        super().__init__()
        if first:
            self.branch1 = nn.Conv3d(dim, out, 1, stride=(1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(out)
        self.branch2 = Bottleneck(dim=dim, inner=inner, out=out, temporal_kernel=temporal_kernel, stride=stride)
        self._projects = first

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, T, H/stride, W/stride)."""
        shortcut = self.branch1_bn(self.branch1(x)) if self._projects else x
        out: Tensor = (shortcut + self.branch2(x)).relu_()
        return out


class Stage(nn.Module):
    """The same number of residual blocks in both pathways."""

    def __init__(
        self, *, dims: tuple[int, int], inner: int, blocks: int, temporal_kernels: tuple[int, int], stride: int
    ) -> None:
        super().__init__()
        self._blocks = blocks
        for pathway, (dim, kernel) in enumerate(zip(dims, temporal_kernels, strict=True)):
            narrow = inner // (BETA if pathway else 1)
            for number in range(blocks):
                first = number == 0
                block = ResBlock(
                    dim=dim if first else 4 * narrow,
                    inner=narrow,
                    out=4 * narrow,
                    temporal_kernel=kernel,
                    stride=stride if first else 1,
                    first=first,
                )
                self.add_module(f"pathway{pathway}_res{number}", block)

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slow and the fast pathway's features."""
        for number in range(self._blocks):
            slow = getattr(self, f"pathway0_res{number}")(slow)
            fast = getattr(self, f"pathway1_res{number}")(fast)
        return slow, fast


class _Stems(nn.Module):
    """Both pathways' stems."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.pathway0_stem = Stem(out=width, temporal_kernel=1)
        self.pathway1_stem = Stem(out=width // BETA, temporal_kernel=5)

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slow and the fast pathway's features."""
        return self.pathway0_stem(slow), self.pathway1_stem(fast)


class SlowFast(nn.Module):
    """The network up to its pooled features.

    Args:
        width: channels of the slow stem; the published network has 64, and 2,304 features.
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        fast = width // BETA
        self.s1 = _Stems(width=width)
        self.s1_fuse = Fuse(fast=fast)
        dims = (width + 2 * fast, fast)
        for number, (blocks, kernels) in enumerate(zip(BLOCKS, TEMPORAL_KERNELS, strict=True)):
            inner = width * 2**number
            stage = Stage(
                dims=dims, inner=inner, blocks=blocks, temporal_kernels=kernels, stride=1 if number == 0 else 2
            )
            self.add_module(f"s{number + 2}", stage)
            out = 4 * inner // BETA
            if number < len(BLOCKS) - 1:
                self.add_module(f"s{number + 2}_fuse", Fuse(fast=out))
            dims = (4 * inner + 2 * out, out)
        self.features = 32 * width + 32 * width // BETA

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Return the features (B, features): the means of both pathways over time and space, slow first.

        Args:
            slow: (B, 3, 8, H, W) and fast: (B, 3, 32, H, W), normalised; H and W are multiples of 32.
        """
        slow, fast = self.s1(slow, fast)
        slow = self.s1_fuse(slow, fast)
        for stage in ("s2", "s3", "s4"):
            slow, fast = getattr(self, stage)(slow, fast)
            slow = getattr(self, f"{stage}_fuse")(slow, fast)
        slow, fast = getattr(self, "s5")(slow, fast)  # noqa: B009
        return torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=1)


def pathways(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slow (B, 3, 8, H, W) and fast (B, 3, 32, H, W) inputs of (B, 32, H, W, 3) uint8 RGB frames."""
    fast = samples.permute(0, 4, 1, 2, 3).float().div(255)
    fast = (fast - MEAN) / (STD + 1e-8)
    return fast[:, :, list(SLOW_INDEX)], fast
