"""SlowFast's weights from Caffe2, PySlowFast and PyTorchVideo files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mesm_core.backbones.slowfast_weights import caffe2_name, pytorchvideo_name, read_slowfast
from mesm_core.errors import FeatureError
from tests.conftest import Evil
from tests.video.golden import GOLDEN, golden_json, needs_shared

pytestmark = needs_shared
WIDTH = 8


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    golden = np.load(GOLDEN / "slowfast_tiny.npz")
    return {n.removeprefix("weights/"): golden[n].astype(np.float32) for n in golden.files if n.startswith("weights/")}


@pytest.fixture
def caffe2(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    names = golden_json("slowfast_names.json")["params"]
    blobs: dict[str, Any] = {names[name]["caffe2"]: value for name, value in arrays.items()}
    blobs |= {"lr": np.float32(0.1), "model_iter": 7, "conv1_w_momentum": np.zeros(3)}
    path = tmp_path / "SLOWFAST_8x8_R50.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    return path


def test_parameter_names_of_both_model_zoos() -> None:
    for name, about in golden_json("slowfast_names.json")["params"].items():
        if not name.startswith("head."):
            assert caffe2_name(name) == about["caffe2"]
            assert pytorchvideo_name(name) == about["pytorchvideo"]


def test_a_caffe2_file_is_read(caffe2: Path, arrays: dict[str, np.ndarray]) -> None:
    weights = read_slowfast(caffe2, width=WIDTH)
    assert all(np.array_equal(value.numpy(), arrays[name]) for name, value in weights.items())
    assert len(weights) == 550


def test_a_pyslowfast_file_is_read(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path / "slowfast.pyth"
    torch.save({"model_state": {name: torch.from_numpy(value) for name, value in arrays.items()}}, path)
    assert len(read_slowfast(path, width=WIDTH)) == 550
    with pytest.raises(FeatureError, match="not PyTorchVideo's"):
        read_slowfast(path, width=WIDTH, pytorchvideo=True)


def test_pytorchvideo_weights_are_refused_unless_requested(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    names = golden_json("slowfast_names.json")["params"]
    path = tmp_path / "SLOWFAST_8x8_R50.pyth"
    torch.save({"model_state": {names[n]["pytorchvideo"]: torch.from_numpy(v) for n, v in arrays.items()}}, path)
    with pytest.raises(FeatureError, match="PyTorchVideo's training"):
        read_slowfast(path, width=WIDTH)
    assert len(read_slowfast(path, width=WIDTH, pytorchvideo=True)) == 550


@pytest.mark.parametrize(
    ("change", "says"),
    [("drop", "lacks 1 of SlowFast's"), ("shape", "has shape"), ("nan", "NaN"), ("evil", "was not loaded")],
)
def test_damaged_and_malicious_files_are_refused(tmp_path: Path, caffe2: Path, change: str, says: str) -> None:
    content = pickle.loads(caffe2.read_bytes(), encoding="latin1")  # noqa: S301
    if change == "drop":
        del content["blobs"]["res2_0_branch2a_w"]
    elif change == "shape":
        content["blobs"]["res2_0_branch2a_w"] = np.zeros((1, 2), np.float32)
    elif change == "nan":
        content["blobs"]["conv1_w"][:] = np.nan
    else:
        content = {"blobs": Evil()}
    caffe2.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(FeatureError, match=says):
        read_slowfast(caffe2, width=WIDTH)


@pytest.mark.parametrize("ending", [".pkl", ".pyth"])
def test_files_without_weights_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    for content in (b"", b"text", b"\x80\x04" + bytes(50)):
        path.write_bytes(content)
        with pytest.raises(FeatureError):
            read_slowfast(path)
