"""Batches in one buffer, as they are copied to a device: features in half precision, or gathered there."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from mesm_core.bench.sizes import invented_dataset
from mesm_core.config.load import load_config
from mesm_core.data.resident import ResidentFeatures
from mesm_core.types import Batch

CPU = torch.device("cpu")
SMALL = ("model.video_dim=24", "model.text_dim=20", "text.vocab_size=30")


def buffer(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8)


def tensors(batch: Batch) -> dict[str, Tensor]:
    parts = [batch.inputs, *([batch.targets] if batch.targets else [])]
    values = {f.name: getattr(part, f.name) for part in parts for f in fields(part)}
    return {name: value for name, value in values.items() if value is not None}


def assert_equal(found: Batch, expected: Batch) -> None:
    assert found.queries == expected.queries
    assert tensors(found).keys() == tensors(expected).keys()
    for name, value in tensors(expected).items():
        assert tensors(found)[name].dtype == value.dtype, name
        assert torch.equal(tensors(found)[name], value), name


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("keep_as", ["float16", "float32"])
@pytest.mark.parametrize("preset", ["tacos", "charades"])
def test_a_packed_batch_arrives_as_the_batch_that_is_not_packed(preset: str, keep_as: str, resident: bool) -> None:
    data, _ = invented_dataset(load_config(preset, overrides=[*SMALL, f"data.keep_as={keep_as}"]))
    plan = data.plan(seed=0, epoch=0, batch_size=4)
    trained = data.train_batch(plan[0], seed=0, epoch=0, index=0)
    (held,) = data.batches(data.eval_plan(batch_size=3)[:1])
    if resident:
        vids = [query.vid for query in data.queries]
        lengths = {vid: len(data.features.frames(vid)) for vid in vids}
        data.resident = ResidentFeatures(lengths, dim=24, dtype=keep_as, device=CPU)
        for vid in lengths:
            data.resident.put(vid, data.features.frames(vid))
    assert_equal(data.train_batch(plan[0], seed=0, epoch=0, index=0, pack=buffer).to(CPU), trained)
    (packed,) = data.batches(data.eval_plan(batch_size=3)[:1], pack=buffer)
    assert_equal(packed.to(CPU), held)


def test_a_packed_batch_holds_features_as_they_are_kept_and_no_resident_ones() -> None:
    sizes = {}
    for keep_as in ("float16", "float32"):
        data, _ = invented_dataset(load_config("tacos", overrides=[*SMALL, f"data.keep_as={keep_as}"]))
        groups = data.plan(seed=0, epoch=0, batch_size=4)[0]
        batch = data.train_batch(groups, seed=0, epoch=0, index=0, pack=buffer)
        assert batch.buffer is not None
        sizes[keep_as] = len(batch.buffer)
    videos, frames = batch.inputs.video_mask.shape
    assert sizes["float32"] - sizes["float16"] == pytest.approx(videos * frames * 24 * 2, abs=64)
    data.resident = ResidentFeatures({q.vid: 500 for q in data.queries}, dim=24, dtype="float32", device=CPU)
    data.resident.rows = lambda vid: np.arange(1, 1 + len(data.features.frames(vid)))  # type: ignore[method-assign]
    batch = data.train_batch(groups, seed=0, epoch=0, index=0, pack=buffer)
    assert batch.buffer is not None
    assert sizes["float32"] - len(batch.buffer) == pytest.approx(videos * frames * (24 * 4 - 8), abs=64)
