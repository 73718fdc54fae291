"""Training of the decoder with queries about other videos (``loss.absent``)."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mesm_core.build import build_criterion
from mesm_core.data.collate import Framing, Item, collate
from mesm_core.losses.spans import absent_loss
from mesm_core.text.near_duplicates import Described
from mesm_core.training.events import EpochDone
from mesm_core.training.run import Run
from mesm_core.types import Batch
from tests.conftest import Trained, small_config
from tests.model.made import DIM, VARIANTS, make_item, make_model

SENTENCES = {
    "a": ("He opens the door.", "She cuts an onion."),
    "b": ("A man is opening doors.", "They paint the fence."),
    "c": ("He reads.",),
}


def make_groups() -> list[list[Item]]:
    rng = np.random.default_rng(0)
    groups = []
    for vid, sentences in SENTENCES.items():
        items = [make_item(rng, vid, len(sentence.split())) for sentence in sentences]
        groups.append(
            [
                replace(item, query=replace(item.query, sentence=text))
                for item, text in zip(items, sentences, strict=True)
            ]
        )
    return groups


def make_batch(described: Described | None, *, seed: int = 0) -> Batch:
    videos = {
        vid: np.random.default_rng(ord(vid)).normal(size=(length, DIM + 2)).astype(np.float32)
        for vid, length in (("a", 7), ("b", 12), ("c", 5))
    }
    rng = np.random.default_rng(seed)
    return collate(make_groups(), videos, framing=Framing(), rng=rng, described=described)


def described() -> Described:
    return Described(item.query for group in make_groups() for item in group)


def test_a_negative_is_absent_unless_its_sentence_is_like_one_about_the_video() -> None:
    seen = set()
    for seed in range(20):
        batch = make_batch(described(), seed=seed)
        assert batch.targets is not None
        assert batch.targets.absent is not None
        for query, other, absent in zip(
            batch.queries, batch.targets.negative_query.tolist(), batch.targets.absent.tolist(), strict=True
        ):
            pair = (query.vid, batch.queries[other].sentence)
            assert absent == (pair not in {("a", "A man is opening doors."), ("b", "He opens the door.")}), pair
            seen.add(absent)
    assert seen == {True, False}


def test_the_other_targets_do_not_change() -> None:
    plain, more = make_batch(None).targets, make_batch(described()).targets
    assert plain is not None
    assert more is not None
    assert plain.absent is None
    for field in fields(plain):
        if field.name != "absent":
            assert torch.equal(getattr(plain, field.name), getattr(more, field.name)), field.name


def test_sentences_about_a_video_in_other_batches_count() -> None:
    queries = [item.query for group in make_groups() for item in group]
    about_b = replace(queries[0], vid="b")  # "He opens the door."
    assert Described(queries[1:]).may_show("c", "He reads a book.")
    assert not Described(queries[:1]).may_show("b", "He opens a door.")
    assert Described([about_b]).may_show("b", "He opens a door.")


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_negative_logits_are_those_of_asking_the_video(variant: dict[str, object], fast: bool) -> None:
    batch, model = make_batch(described()), make_model(**variant, fast=fast)
    assert batch.targets is not None
    other = batch.targets.negative_query
    asked = replace(batch.inputs, words=batch.inputs.words[other], words_mask=batch.inputs.words_mask[other])
    with torch.inference_mode():
        trained, inference = model(batch.inputs, batch.targets), model(asked)
    frames = batch.inputs.frames_mask
    assert trained.negative_logits is not None
    assert torch.allclose(trained.negative_logits, inference.logits, atol=1e-5)
    assert torch.allclose(trained.negative_saliency[frames], inference.saliency[frames], atol=1e-5)


def test_the_loss_is_the_mean_over_all_slots_of_absent_queries() -> None:
    logits = torch.zeros(2, 3, 4, 2)
    logits[1] = torch.tensor([np.log(3.0), 0.0])  # p(background) = 1/4
    logits[:, 2] = torch.tensor([50.0, 0.0])
    loss = absent_loss(logits, torch.tensor([True, True, False]))
    assert loss.tolist() == pytest.approx([np.log(2), np.log(4)])
    assert absent_loss(logits, torch.tensor([False] * 3)).tolist() == [0, 0]


@pytest.mark.parametrize("aux", [True, False])
def test_the_loss_has_a_value_for_each_layer_that_the_label_loss_has(aux: bool) -> None:
    config = small_config("loss.absent=2", "model.decoder_layers=3", f"loss.aux={str(aux).lower()}")
    batch, model = make_batch(described()), make_model(decoder_layers=3)
    assert batch.targets is not None
    criterion = build_criterion(config.loss, config.model)
    with torch.no_grad():
        losses = criterion(model(batch.inputs, batch.targets), batch.inputs, batch.targets)
    suffixes = {name.removeprefix("loss_label") for name in losses if name.startswith("loss_label")}
    assert {name.removeprefix("loss_absent") for name in losses if name.startswith("loss_absent")} == suffixes
    assert len(suffixes) == (3 if aux else 1)
    absent = {name: value for name, value in losses.items() if name.startswith("loss_absent")}
    rest = criterion.total({name: value for name, value in losses.items() if name not in absent})
    assert criterion.total(losses).item() == pytest.approx(float(rest + 2 * sum(absent.values())), rel=1e-5)


def test_targets_without_negatives_for_the_decoder_are_refused() -> None:
    config = small_config("loss.absent=1")
    batch, model = make_batch(None), make_model()
    assert batch.targets is not None
    output = model(batch.inputs, batch.targets)
    assert output.negative_logits is None
    with pytest.raises(ValueError, match="absent=True"):
        build_criterion(config.loss, config.model)(output, batch.inputs, batch.targets)


@pytest.mark.parametrize("weight", [0, 1])
def test_a_run_has_the_loss_only_if_it_has_a_weight(trained: Trained, tmp_path: Path, weight: int) -> None:
    config = small_config(f"loss.absent={weight}", "train.epochs=1")
    run = Run.open(config, trained.paths, tmp_path, device=torch.device("cpu"))
    (done,) = [event for event in run.train() if isinstance(event, EpochDone)]
    losses = done.record["losses"]
    assert ("loss_absent" in losses, "loss_absent_0" in losses) == (weight > 0, weight > 0)
    assert weight == 0 or losses["loss_absent"] > 0
