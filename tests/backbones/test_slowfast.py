"""SlowFast against the published implementation's worked examples."""

from __future__ import annotations

import copy
import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from mesm_core.backbones.slowfast import SlowFast, pathways
from mesm_core.backbones.slowfast_fused import fuse_batch_norm
from mesm_core.backbones.slowfast_sampling import SLOW_INDEX, WindowSampler, sample_index
from mesm_core.errors import FeatureError
from tests.video.golden import GOLDEN, golden_json, needs_shared

pytestmark = needs_shared


@pytest.fixture(scope="module")
def tiny() -> SlowFast:
    golden = np.load(GOLDEN / "slowfast_tiny.npz")
    names = [key for key in golden.files if key.startswith("weights/") and "head." not in key]
    model = SlowFast(width=8)
    weights = {name.removeprefix("weights/"): torch.from_numpy(golden[name]).float() for name in names}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model.eval()


@torch.inference_mode()
def test_features_of_frames_match_the_reference(tiny: SlowFast) -> None:
    golden = np.load(GOLDEN / "slowfast_tiny.npz")
    found = tiny(*pathways(torch.from_numpy(golden["frames_u8"]))).numpy()
    assert np.abs(found - golden["feature"]).max() < 1e-4
    assert tuple(golden["slow_index"]) == SLOW_INDEX


@torch.inference_mode()
def test_features_of_independent_pathways_match_the_reference(tiny: SlowFast) -> None:
    golden = np.load(GOLDEN / "slowfast_tiny.npz")
    slow, fast = (torch.from_numpy(golden[name]).float() for name in ("slow", "fast"))
    assert np.abs(tiny(slow, fast).numpy() - golden["slow_fast_feature"]).max() < 1e-4


@torch.inference_mode()
def test_features_do_not_depend_on_the_batch(tiny: SlowFast) -> None:
    frames = torch.from_numpy(np.load(GOLDEN / "slowfast_tiny.npz")["frames_u8"])
    both = tiny(*pathways(frames))
    alone = torch.cat([tiny(*pathways(frames[i : i + 1])) for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [slice(0, 2), slice(0, 1), slice(0, 0)])
def test_fused_batch_norm_gives_the_same_features(tiny: SlowFast, frames: slice) -> None:
    samples = torch.from_numpy(np.load(GOLDEN / "slowfast_tiny.npz")["frames_u8"])[frames]
    slow, fast = (pathway.double() for pathway in pathways(samples))
    double = copy.deepcopy(tiny).double()
    fast_model = fuse_batch_norm(double)
    assert not [module for module in fast_model.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    assert torch.allclose(fast_model(slow, fast), double(slow, fast), rtol=0, atol=1e-10)
    single = fuse_batch_norm(tiny)(slow.float(), fast.float())
    assert torch.allclose(single, tiny(slow.float(), fast.float()), rtol=0, atol=1e-5)


def test_parameter_names_and_shapes_match_pyslowfast() -> None:
    expected = golden_json("slowfast_names.json")["params"]
    own = {name: list(value.shape) for name, value in SlowFast().state_dict().items()}
    own = {name: shape for name, shape in own.items() if not name.endswith("num_batches_tracked")}
    assert own == {name: about["shape"] for name, about in expected.items() if not name.startswith("head.")}
    assert SlowFast().features == 2304


def test_sampling_matches_hero() -> None:
    for row in golden_json("slowfast_sampling.json")["rows"]:
        found = sample_index(row["window_frames"], row["native_fps_floor"])
        assert found.tolist() == row["hero"], row


def test_windows_match_hero() -> None:
    for case in golden_json("slowfast_sampling.json")["cases"]:
        sampler = WindowSampler(Fraction(case["clip_len"]), frame_rate=case["native_fps_floor"] + 0.9)
        windows = [w for number in range(case["frames_at_30"]) for w in sampler.push(np.array(number))]
        windows += sampler.finish(case["duration"])
        assert len(windows) == case["clips"], json.dumps(case)
        assert windows[0].tolist() == case["first"]
        assert windows[-1].tolist() == case["last"]


def test_rows_of_fractional_seconds_are_refused() -> None:
    with pytest.raises(FeatureError, match="whole seconds"):
        WindowSampler(Fraction(3, 2), frame_rate=30)
