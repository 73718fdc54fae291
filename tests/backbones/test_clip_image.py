"""CLIP's image tower against the published implementation's worked examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mesm_core.backbones.clip_image import ClipImageTransformer, normalised
from mesm_core.errors import FeatureError
from tests.video.test_decoding import GOLDEN, needs_shared

pytestmark = needs_shared


@pytest.fixture(scope="module")
def tiny() -> ClipImageTransformer:
    golden = np.load(GOLDEN / "clip_visual_tiny.npz")
    weights = {
        name.removeprefix("weights/"): torch.from_numpy(golden[name])
        for name in golden.files
        if name.startswith("weights/")
    }
    return ClipImageTransformer.from_weights(weights)


@torch.inference_mode()
def test_features(tiny: ClipImageTransformer) -> None:
    golden = np.load(GOLDEN / "clip_visual_tiny.npz")
    found = tiny(torch.from_numpy(golden["images"]).float()).numpy()
    assert np.abs(found - golden["features"]).max() < 1e-4
    assert np.abs(found - golden["features_f64"]).max() < 1e-4


@torch.inference_mode()
def test_features_in_double_precision(tiny: ClipImageTransformer) -> None:
    golden = np.load(GOLDEN / "clip_visual_tiny.npz")
    double = ClipImageTransformer.from_weights({f"visual.{k}": v for k, v in tiny.state_dict().items()}).double()
    found = double(torch.from_numpy(golden["images"]).double()).numpy()
    assert np.abs(found - golden["features_f64"]).max() < 1e-9


def test_normalisation() -> None:
    golden = np.load(GOLDEN / "clip_preprocess_pil.npz")
    found = normalised(torch.from_numpy(golden["pixels_u8"])).numpy()
    assert np.abs(found - golden["tensor"]).max() < 2e-3


@torch.inference_mode()
def test_a_batch_is_its_items(tiny: ClipImageTransformer) -> None:
    images = torch.from_numpy(np.load(GOLDEN / "clip_visual_tiny.npz")["images"]).float()
    alone = torch.cat([tiny(images[i : i + 1]) for i in range(len(images))])
    assert torch.allclose(tiny(images), alone, atol=1e-5)


@pytest.mark.parametrize("name", ["conv1.weight", "positional_embedding", "ln_post.bias"])
def test_incomplete_weights_are_refused(tiny: ClipImageTransformer, name: str) -> None:
    weights = {f"visual.{key}": value for key, value in tiny.state_dict().items() if key != name}
    with pytest.raises(FeatureError, match="no CLIP image encoder"):
        ClipImageTransformer.from_weights(weights)
