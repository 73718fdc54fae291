"""On a GPU no device is mixed, and the host reads no value: what would crash there, or wait. Steps launch few kernels.

With the fake tensors of ``shared/tools/fake_cuda`` this is seen without a GPU; where there is one, for real.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mesm_core.bench.sizes import invented_dataset
from mesm_core.build import build_criterion, build_model
from mesm_core.config.load import load_config
from mesm_core.devices import pinned
from mesm_core.losses.matching import match, match_by_scipy
from mesm_core.training.loop import train_epoch
from mesm_core.training.objective import Objective
from mesm_core.training.optim import clip_gradients, make_optimizer
from mesm_core.training.precision import use_precision
from tests.training.fake_cuda_steps import PRECISIONS, SMALLER

ROOT = Path(__file__).resolve().parents[2]
# One window and several, a context of one video and of a group, triplets or none, feed-forwards shared or not.
DIFFERENT = ("tacos", "charades", "qvhighlights")
# All presets in all precisions take minutes; each precision and each difference is seen once here.
QUICK = (
    "tacos:tf32", "tacos:bf16", "charades:tf32", "charades:bf16", "qvhighlights:fp32", "qvhighlights:fp32:reference",
    "tacos:bf16:absent",
)  # fmt: skip
ALL = tuple(sorted(path.stem for path in (ROOT / "configs").glob("*.toml")))
MOST_LAUNCHES = {"fp32": 1200, "tf32": 1200, "bf16": 1310}
"""Kernel launches of a training step of the fast forward; the plain modules and ``loss.absent`` have no limit."""
MOST_IN_EVALUATION = 285


def steps(shared: Path, presets: tuple[str, ...]) -> dict[str, list[Any]]:
    folder = shared / "tools" / "fake_cuda"
    if not (folder / "fake_cuda.py").is_file():
        pytest.skip(f"no {folder}")
    if torch.backends.cuda.is_built():
        pytest.skip("fake_cuda takes the place of CUDA in a torch that was built without it")
    if shutil.which("g++") is None:
        pytest.skip("fake_cuda is built with g++, which is not here")
    command = [sys.executable, "-m", "tests.training.fake_cuda_steps", str(folder), *presets]
    # What is built is linked to this environment's torch, so another environment must not find it.
    built = Path(tempfile.gettempdir()) / f"mesm-fake-cuda-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}"
    built.mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(built)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr  # devices mixed, or a value that the host must know
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def assert_only_the_batch_crosses(found: dict[str, list[Any]], presets: tuple[str, ...]) -> None:
    wanted = {f"{word} {p}" for word in presets if ":" not in word for p in PRECISIONS}
    assert set(found) == wanted | {word.replace(":", " ") for word in presets if ":" in word}
    for name, (training, _, evaluation, _) in found.items():
        for crossed in (training, evaluation):
            ((operator, before, after, where),) = crossed  # one copy
            assert (operator, before, after, where.split(":")[0]) == ("_to_copy", ["cpu"], ["cuda"], "types.py"), name


def assert_few_launches(found: dict[str, list[Any]]) -> None:
    for name, (_, training, _, evaluation) in found.items():
        _, precision, *variant = name.split()
        if not variant:
            assert 900 < training <= MOST_LAUNCHES[precision], name
            assert 200 < evaluation <= MOST_IN_EVALUATION, name


def test_steps_of_a_gpu_neither_mix_devices_nor_wait_and_launch_few_kernels(shared: Path) -> None:
    found = steps(shared, QUICK)
    assert_only_the_batch_crosses(found, QUICK)
    assert_few_launches(found)


@pytest.mark.slow
def test_so_do_those_of_all_presets(shared: Path) -> None:
    found = steps(shared, ALL)
    assert_only_the_batch_crosses(found, ALL)
    assert_few_launches(found)


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.mark.cuda
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("preset", DIFFERENT)
def test_a_step_on_a_gpu_does_not_wait(gpu: torch.device, preset: str, precision: str) -> None:
    config = load_config(preset, overrides=SMALLER)
    data, text = invented_dataset(config)
    plan = data.plan(seed=0, epoch=0, batch_size=config.train.batch_size)
    batch = data.train_batch(plan[0], seed=0, epoch=0, index=0, pack=pinned).to(gpu)
    assert batch.targets is not None
    torch.manual_seed(0)
    model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words).to(gpu).train()
    criterion = build_criterion(config.loss, config.model)
    optimizer = make_optimizer(model, lr=1e-4, weight_decay=1e-4)
    for waiting in ("default", "error"):  # the first step makes what is kept
        torch.cuda.set_sync_debug_mode(waiting)
        try:
            optimizer.zero_grad(set_to_none=True)
            with use_precision(model, gpu, precision) as numbers:
                with numbers:
                    output = model(batch.inputs, batch.targets)
                loss = criterion.total(criterion(output.float(), batch.inputs, batch.targets))
                loss.backward()
            clip_gradients(optimizer, config.train.grad_clip)
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)


@pytest.mark.cuda
def test_matching_on_a_gpu_costs_what_scipy_does(gpu: torch.device) -> None:
    torch.manual_seed(0)
    costs, there = torch.randn(40, 10, 5), torch.rand(40, 5) < 0.7
    cost, mask = costs.to(gpu), there.to(gpu)
    torch.cuda.set_sync_debug_mode("error")  # an operation that waits for the device is an error
    try:
        slots = match(cost, mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    ours, theirs = (
        (costs.gather(1, found.unsqueeze(1)).squeeze(1) * there).sum(dim=1)
        for found in (slots.cpu(), match_by_scipy(costs, there))
    )
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.cuda
def test_an_epoch_on_a_gpu_ends(gpu: torch.device) -> None:
    """The late watch, pinned memory and its events included."""
    config = load_config("qvhighlights", overrides=SMALLER)
    data, text = invented_dataset(config)
    plan = data.plan(seed=0, epoch=0, batch_size=2)[:3]
    data.plan = lambda **_: plan  # type: ignore[method-assign]
    model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words).to(gpu)
    steps = train_epoch(
        Objective(model, build_criterion(config.loss, config.model)),
        make_optimizer(model, lr=1e-4, weight_decay=1e-4), data,
        epoch=0, seed=0, batch_size=2, grad_clip=0.1, device=gpu, precision="bf16",
    )  # fmt: skip
    assert [bool(step.checked) for step in steps] == [False, True, True]
    assert torch.get_float32_matmul_precision() == "highest"
