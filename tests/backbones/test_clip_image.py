"""CLIP's image tower against the published implementation's worked examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mesm_core.backbones.clip_image import ClipImageTransformer, normalised
from mesm_core.errors import FeatureError, TextError
from mesm_core.text.clip_weights import read_clip_image
from tests.video.golden import GOLDEN, needs_shared

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
def test_features_match_the_reference(tiny: ClipImageTransformer) -> None:
    golden = np.load(GOLDEN / "clip_visual_tiny.npz")
    found = tiny(torch.from_numpy(golden["images"]).float()).numpy()
    assert np.abs(found - golden["features"]).max() < 1e-4
    assert np.abs(found - golden["features_f64"]).max() < 1e-4


@torch.inference_mode()
def test_features_in_double_precision_match_the_reference(tiny: ClipImageTransformer) -> None:
    golden = np.load(GOLDEN / "clip_visual_tiny.npz")
    double = ClipImageTransformer.from_weights({f"visual.{k}": v for k, v in tiny.state_dict().items()}).double()
    found = double(torch.from_numpy(golden["images"]).double()).numpy()
    assert np.abs(found - golden["features_f64"]).max() < 1e-9


def test_normalisation_matches_the_reference() -> None:
    golden = np.load(GOLDEN / "clip_preprocess_pil.npz")
    found = normalised(torch.from_numpy(golden["pixels_u8"])).numpy()
    assert np.abs(found - golden["tensor"]).max() < 2e-3


@torch.inference_mode()
def test_features_do_not_depend_on_the_batch(tiny: ClipImageTransformer) -> None:
    images = torch.from_numpy(np.load(GOLDEN / "clip_visual_tiny.npz")["images"]).float()
    alone = torch.cat([tiny(images[i : i + 1]) for i in range(len(images))])
    assert torch.allclose(tiny(images), alone, atol=1e-5)


@pytest.mark.parametrize("name", ["conv1.weight", "positional_embedding", "ln_post.bias"])
def test_incomplete_weights_are_refused(tiny: ClipImageTransformer, name: str) -> None:
    weights = {f"visual.{key}": value for key, value in tiny.state_dict().items() if key != name}
    with pytest.raises(FeatureError, match="not a CLIP image encoder"):
        ClipImageTransformer.from_weights(weights)


def _hugging_face(tower: ClipImageTransformer) -> dict[str, torch.Tensor]:
    """Return the tower's weights under Hugging Face's names."""
    own = tower.state_dict()
    theirs = {
        "vision_model.embeddings.class_embedding": own["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": own["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": own["positional_embedding"],
        "visual_projection.weight": own["proj"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        theirs[f"vision_model.pre_layrnorm.{kind}"] = own[f"ln_pre.{kind}"]
        theirs[f"vision_model.post_layernorm.{kind}"] = own[f"ln_post.{kind}"]
        for layer in range(2):
            here, there = f"transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
            for part, packed in zip("qkv", own[f"{here}.attn.in_proj_{kind}"].chunk(3), strict=True):
                theirs[f"{there}.self_attn.{part}_proj.{kind}"] = packed.clone()
            names = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
                     "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}  # fmt: skip
            theirs |= {f"{there}.{name}.{kind}": own[f"{here}.{mine}.{kind}"] for name, mine in names.items()}
    return theirs


@pytest.mark.parametrize("form", ["openai", "hugging face", "open_clip"])
def test_every_file_format_gives_the_same_tower(tiny: ClipImageTransformer, tmp_path: Path, form: str) -> None:
    path = tmp_path / "clip.pt"
    own = {f"visual.{name}": value for name, value in tiny.state_dict().items()}
    weights = {
        "openai": own,
        "hugging face": _hugging_face(tiny),
        "open_clip": {f"module.{n}": v for n, v in own.items()},
    }
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(4), "logit_scale": torch.tensor(1.0)}
    torch.save({"state_dict": weights[form] | text}, path)
    found = ClipImageTransformer.from_weights(read_clip_image(path))
    assert all(torch.equal(found.state_dict()[name], value) for name, value in tiny.state_dict().items())


def test_a_text_tower_alone_is_refused(tmp_path: Path) -> None:
    torch.save({"token_embedding.weight": torch.ones(4, 4)}, tmp_path / "text.pt")
    with pytest.raises(TextError, match="no CLIP image tower"):
        read_clip_image(tmp_path / "text.pt")
