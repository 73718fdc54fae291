"""Features on the device: those that fit are copied there once, before training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mesm_core.build.training import TrainingParts, build_training
from mesm_core.data.resident import ResidentFeatures
from mesm_core.errors import MesmError
from mesm_core.training import preparation
from mesm_core.training.events import Busy, Warned
from mesm_core.training.preparation import read_features
from tests.conftest import Trained, small_config

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def parts_of(trained: Trained, *changes: str) -> TrainingParts:
    return build_training(small_config(*changes), trained.paths, device=CPU)


def buffer(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8)


def video(parts: TrainingParts, *, pack: bool) -> Tensor:
    plan = parts.train_data.plan(seed=3, epoch=0, batch_size=4)
    batch = parts.train_data.train_batch(plan[0], seed=3, epoch=0, index=0, pack=buffer if pack else None)
    assert (batch.table is not None) == (pack and parts.train_data.resident is not None)
    return batch.to(CPU).inputs.video


@pytest.mark.parametrize("cache_gb", [8, 0])
def test_features_that_fit_are_gathered_on_the_device(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, cache_gb: int
) -> None:
    def on_the_cpu(*args: Any, device: torch.device, **more: Any) -> ResidentFeatures:
        assert device == CUDA
        return ResidentFeatures(*args, device=CPU, **more)

    monkeypatch.setattr(preparation, "ResidentFeatures", on_the_cpu)
    parts = parts_of(trained, "data.device_cache_gb=1", f"data.cache_gb={cache_gb}")
    events = list(read_features(parts, CUDA))
    assert all(isinstance(event, Busy) for event in events)
    resident = parts.train_data.resident
    assert resident is not None
    assert all(data.resident is resident for data in parts.eval_data.values())
    assert torch.equal(video(parts, pack=True), video(parts_of(trained), pack=False))


def test_features_that_do_not_fit_are_copied_with_every_batch_and_this_is_said(trained: Trained) -> None:
    parts = parts_of(trained, "data.device_cache_gb=1e-9")
    (warned,) = [event for event in read_features(parts, CUDA) if isinstance(event, Warned)]
    assert "more than data.device_cache_gb=1e-09" in warned.message
    assert parts.train_data.resident is None
    assert torch.equal(video(parts, pack=True), video(parts, pack=False))


def test_a_device_without_enough_memory_is_named(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(preparation, "ResidentFeatures", full)
    with pytest.raises(MesmError, match=r"cuda has no memory for 0\.0 GB of features") as raised:
        list(read_features(parts_of(trained, "data.device_cache_gb=1"), CUDA))
    assert "data.device_cache_gb" in str(raised.value.hint)


@pytest.mark.parametrize(("device", "room"), [(CPU, "1"), (CUDA, "0")])
def test_features_are_not_kept_on_a_cpu_or_without_the_setting(
    trained: Trained, device: torch.device, room: str
) -> None:
    parts = parts_of(trained, f"data.device_cache_gb={room}")
    assert not any(isinstance(event, Warned) for event in read_features(parts, device))
    assert parts.train_data.resident is None
