"""Agreement with the published implementation's worked examples, at the tolerances of tests/golden/data/README.md.

Three small examples are always compared, seven larger ones where they are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mesm_core.build import build_model
from mesm_core.config.schema import ModelConfig
from mesm_core.fast.mesm import FastMesm
from mesm_core.model.mesm import Mesm
from mesm_core.official.names import from_official, to_official
from tests.conftest import GOLDEN
from tests.parity.__main__ import main
from tests.parity.fixture import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Errors, Fixture, compute, judge

MODELS = [
    "charades_clip",
    "charades_glove_pkl",
    "charades_no_recfw",
    "charades_no_recss",
    "qvhighlights_clip",
    "tacos_glove",
    "tacos_txt_pos",
]


EXAMPLES = GOLDEN / "model"
BOTH_FORWARDS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "reference"])


@BOTH_FORWARDS
@pytest.mark.parametrize("name", ["charades_no_recss", "qvhighlights_clip", "tacos_glove"])
def test_small_worked_example(name: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_agrees(EXAMPLES / f"{name}.npz", fast=fast, monkeypatch=monkeypatch)


@BOTH_FORWARDS
@pytest.mark.parametrize("name", MODELS)
def test_worked_example(shared: Path, name: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_agrees(shared / "golden" / "model" / f"{name}.npz", fast=fast, monkeypatch=monkeypatch)


def assert_agrees(path: Path, *, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 or, where the rounding of the machine at hand moves a gradient, in float64."""

    def build(config: ModelConfig, **sizes: int) -> Mesm:
        model = build_model(config.model_copy(update={"fast": fast}), **sizes)
        assert isinstance(model, FastMesm) == fast
        return model

    monkeypatch.setattr("tests.parity.fixture.build_model", build)
    verdict = judge(path)
    assert verdict.held is not None, verdict
    assert verdict.single.outputs <= OUTPUT_TOLERANCE
    assert verdict.single.losses <= OUTPUT_TOLERANCE
    assert verdict.decisive.gradients <= GRADIENT_TOLERANCE
    assert verdict.single.matching


def test_small_examples_have_gradients_of_every_layer() -> None:
    for path in EXAMPLES.glob("*.npz"):
        fixture = Fixture(path)
        with_gradients = {from_official(name).rpartition(".")[0] for name in fixture.group("grad")}
        modules = {
            name for name, module in fixture.model().named_modules() if getattr(module, "bias", None) is not None
        }
        assert len(modules & with_gradients) > 0.9 * len(modules), path


def test_command_tells_agreement_from_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(EXAMPLES / "charades_no_recss.npz") as arrays:
        content = {name: arrays[name] for name in arrays.files}
    np.savez(tmp_path / "same.npz", **content)
    assert main([str(tmp_path)]) == 0
    capsys.readouterr()
    content["out/pred_spans"] = content["out/pred_spans"] + np.float32(1e-3)
    np.savez(tmp_path / "other.npz", **content)
    assert main([str(tmp_path)]) == 1
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["same"].endswith("ok")
    assert lines["other"].endswith("OVER")


def write_example_that_float32_spoils(source: Path, target: Path) -> None:
    """Move the video features far from zero, so that float32 loses digits; what is expected is computed in float64."""
    with np.load(source) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    content["in/video_feat"] = content["in/video_feat"] + np.float32(300)
    np.savez(target, **content)
    fixture = Fixture(target)
    exact = compute(fixture, torch.float64)
    assert exact.losses["total"].dtype == torch.float64
    for name in fixture.group("out"):
        value = exact.outputs[name][0]
        assert value is not None
        content[f"out/{name}"] = value.detach().numpy()
    content |= {f"loss/{name}": exact.losses[name].numpy() for name in fixture.group("loss")}
    content |= {f"grad/{to_official(name)}": value.numpy() for name, value in exact.gradients.items()}
    content["match/query"] = exact.pairs[:, 0]
    np.savez(target, **content)


def test_what_float32_spoils_is_compared_in_float64(tmp_path: Path) -> None:
    source = EXAMPLES / "charades_no_recss.npz"
    write_example_that_float32_spoils(source, tmp_path / "spoilt.npz")
    verdict = judge(tmp_path / "spoilt.npz")
    assert not verdict.single.within
    assert verdict.held == "float64"
    assert judge(source).double is None
    np.savez(tmp_path / "same.npz", **np.load(source))
    command = [sys.executable, "-m", "tests.parity", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["same"].endswith("float32 ok")
    assert "in float32 over" in lines["spoilt"]
    assert lines["spoilt"].endswith("float64 ok")


def test_a_flipped_gradient_is_judged_in_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a PReLU's input is 0 but for rounding."""
    calls: list[torch.dtype] = []

    def measured(path: Path, dtype: torch.dtype = torch.float32) -> Errors:
        calls.append(dtype)
        return Errors(1e-6, 1e-6, 4e-3 if dtype == torch.float32 else 1e-6, matching=True)

    monkeypatch.setattr("tests.parity.fixture.compare", measured)
    assert judge(tmp_path).held == "float64"
    assert calls == [torch.float32, torch.float64]
