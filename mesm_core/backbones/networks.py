"""Backbones that are neural networks, on a device and in a precision."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from mesm_core.backbones import clip_image, slowfast
from mesm_core.backbones.clip_image import ClipImageTransformer
from mesm_core.backbones.protocol import PictureSampler, Precision, VideoInfo
from mesm_core.backbones.slowfast import SlowFast
from mesm_core.backbones.slowfast_fused import fuse_batch_norm
from mesm_core.backbones.slowfast_sampling import RATE, WindowSampler
from mesm_core.errors import FeatureError
from mesm_core.model.weights import hash_weights

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
USUAL_RATE = 30.0
"""Assumed frame rate of a video whose header has none."""


def default_precision(device: torch.device) -> Precision:
    """Return the precision of the published features: fp16 on CUDA, fp32 on the CPU."""
    return "fp16" if device.type == "cuda" else "fp32"


class ClipB32:
    """CLIP's image tower as a backbone: one picture a row, projected features that are not normalised.

    Args:
        model: in float32; device: where to run; precision: of weights and pictures; the CPU does not support ``fp16``.
    """

    name = "clip-b32"

    def __init__(self, model: ClipImageTransformer, *, device: torch.device, precision: Precision) -> None:
        _refuse_slow_half(device, precision)
        self.width = int(model.proj.shape[1])
        self.side = model.side
        self.weights_hash = hash_weights(model)
        self._model = model.to(device=device, dtype=_DTYPES[precision])
        self._device, self._dtype = device, _DTYPES[precision]

    def picture_seconds(self, clip_len: Fraction) -> Fraction:
        """Return ``clip_len``: one picture a row."""
        return clip_len

    def sampler(self, clip_len: Fraction, video: VideoInfo) -> PictureSampler:
        """Return a sampler for a video."""
        return PictureSampler()

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return (B, width) float32 features of (B, S, S, 3) uint8 pictures."""
        pictures = clip_image.normalised(torch.from_numpy(samples).to(self._device))
        features: np.ndarray = self._model(pictures.to(self._dtype)).float().cpu().numpy()
        return features


class SlowFastR50:
    """SlowFast R50 8×8 as a backbone: 32 frames of each window of ``clip_len`` seconds.

    Args:
        model: in float32; device: where to run; precision: of weights and frames; the CPU does not support ``fp16``.
        name: name in the registry, which identifies the training.
    """

    def __init__(
        self, model: SlowFast, *, device: torch.device, precision: Precision, name: str = "slowfast-r50"
    ) -> None:
        _refuse_slow_half(device, precision)
        self.name = name
        self.width = model.features
        self.weights_hash = hash_weights(model)
        self._model = fuse_batch_norm(model).to(device=device, dtype=_DTYPES[precision])
        self._device, self._dtype = device, _DTYPES[precision]

    def picture_seconds(self, clip_len: Fraction) -> Fraction:
        """Return 1/30: windows are cut from 30 frames a second."""
        return Fraction(1, RATE)

    def sampler(self, clip_len: Fraction, video: VideoInfo) -> WindowSampler:
        """Return a sampler for a video."""
        return WindowSampler(clip_len, frame_rate=video.frame_rate or USUAL_RATE)

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return (B, 2304) float32 features of (B, 32, S, S, 3) uint8 frames."""
        slow, fast = slowfast.pathways(torch.from_numpy(samples).to(self._device))
        slow, fast = (x.to(self._dtype, memory_format=torch.channels_last_3d) for x in (slow, fast))
        features: np.ndarray = self._model(slow, fast).float().cpu().numpy()
        return features


def _refuse_slow_half(device: torch.device, precision: Precision) -> None:
    if device.type == "cpu" and precision == "fp16":
        raise FeatureError("CPUs compute float16 slowly.", hint="Use --precision fp32, or bf16 if the CPU supports it.")
