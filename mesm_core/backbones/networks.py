"""Backbones that are neural networks, on a device and in a precision."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from mesm_core.backbones import clip_image, slowfast
from mesm_core.backbones.clip_image import ClipImageTransformer
from mesm_core.backbones.protocol import SIDE, PictureSampler, Precision, VideoInfo
from mesm_core.backbones.slowfast import SlowFast
from mesm_core.backbones.slowfast_fused import fuse_batch_norm
from mesm_core.backbones.slowfast_sampling import RATE, WindowSampler
from mesm_core.backbones.slowfast_weights import read_slowfast
from mesm_core.errors import FeatureError
from mesm_core.model.weights import hash_weights
from mesm_core.text.clip_weights import read_clip_image

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
USUAL_RATE = 30.0
"""Assumed frame rate of a video whose header has none."""


def default_precision(device: torch.device) -> Precision:
    """Return the precision of the published features: fp16 on CUDA, fp32 on the CPU."""
    return "fp16" if device.type == "cuda" else "fp32"


def clip_b32(weights: Path | None, device: torch.device, precision: Precision) -> ClipB32:
    """Return CLIP's image tower with the weights of OpenAI, Hugging Face or open_clip.

    Raises:
        FeatureError: the weights are damaged, or not those of ViT-B/32.
    """
    assert weights is not None
    model = ClipImageTransformer.from_weights(read_clip_image(weights))
    if model.side != SIDE or model.conv1.kernel_size != (32, 32):
        raise FeatureError(
            f"{weights} is not ViT-B/32: its pictures have {model.side} pixels a side and patches of "
            f"{model.conv1.kernel_size[0]}.",
            hint="Give the weights of ViT-B/32.",
        )
    return ClipB32(model, device=device, precision=precision)


def slowfast_r50(weights: Path | None, device: torch.device, precision: Precision) -> SlowFastR50:
    """Return SlowFast with the weights of PySlowFast.

    Raises:
        FeatureError: the weights are damaged, or of another network or training.
    """
    return _slowfast(weights, device, precision, pytorchvideo=False)


def slowfast_other(weights: Path | None, device: torch.device, precision: Precision) -> SlowFastR50:
    """Return SlowFast with PyTorchVideo's weights, which come from another training.

    Raises:
        FeatureError: the weights are damaged, or of another network or training.
    """
    return _slowfast(weights, device, precision, pytorchvideo=True)


def _slowfast(path: Path | None, device: torch.device, precision: Precision, *, pytorchvideo: bool) -> SlowFastR50:
    assert path is not None
    model = SlowFast()
    model.load_state_dict(read_slowfast(path, pytorchvideo=pytorchvideo), strict=False)
    name = "slowfast-r50-pytorchvideo" if pytorchvideo else "slowfast-r50"
    return SlowFastR50(model, device=device, precision=precision, name=name)


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
