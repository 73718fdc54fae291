"""Precision is a context that ends: what is evaluated or timed during training is computed as without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mesm_core.bench import measure
from mesm_core.fast.mesm import FastMesm
from mesm_core.inference.evaluate import write_predictions
from mesm_core.inference.scoring import load_for_scoring, score_checkpoint
from mesm_core.training import precision as precisions
from mesm_core.training.events import Busy, EpochDone, Event
from mesm_core.training.precision import float32_products, use_precision
from mesm_core.training.run import Run
from tests.conftest import Trained, small_config

CPU = torch.device("cpu")


def state(model: torch.nn.Module) -> tuple[str, bool, bool]:
    keeps = any(module.types is not None for module in model.modules() if isinstance(module, FastMesm))
    return torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled(), keeps


def test_everything_is_put_back_even_after_an_error(monkeypatch: pytest.MonkeyPatch, trained: Trained) -> None:
    monkeypatch.setattr(precisions, "fast_bfloat16", lambda: False)
    model = Run.open(small_config(), trained.paths, trained.run, device=CPU).model
    assert state(model) == ("highest", True, False)
    with pytest.raises(ZeroDivisionError), use_precision(model, CPU, "bf16"):
        assert state(model) == ("high", False, True)
        raise ZeroDivisionError
    assert state(model) == ("highest", True, False)
    with float32_products("medium"), use_precision(model, CPU, "fp32"):
        assert state(model) == ("highest", False, False)
    assert state(model) == ("highest", True, False)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_what_happens_between_steps_is_in_float32(
    trained: Trained, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training multiplies as asked; at every event and in every forward pass of an evaluation nothing is left of it."""
    monkeypatch.setattr(precisions, "fast_bfloat16", lambda: False)
    run = Run.open(
        small_config(f"train.precision={precision}", "train.loggers=[]"), trained.paths, tmp_path, device=CPU
    )
    seen: dict[bool, set[tuple[str, bool, bool]]] = {True: set(), False: set()}
    run.model.register_forward_hook(lambda model, *_: seen[model.training].add(state(model)))
    events: list[Event] = []
    for event in run.train():
        events.append(event)
        assert state(run.model) == ("highest", True, False), event
    assert any(isinstance(event, Busy) for event in events)
    assert seen[True] == {("high", False, precision == "bf16")}
    assert seen[False] == {("highest", True, False)}


def test_the_run_chooses_by_the_numbers_that_eval_reports(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "fast_bfloat16", lambda: False)
    run = Run.open(
        small_config("train.precision=bf16", "train.epochs=3", "train.lr=1e-2"), trained.paths, tmp_path, device=CPU
    )
    best = [event.record for event in run.train() if isinstance(event, EpochDone) and event.best][-1]
    scored = score_checkpoint(load_for_scoring(tmp_path / "best.pt", split="val", device="cpu"))
    assert scored.brief == best["eval"]["val"]
    inside = (tmp_path / "predictions" / "val.jsonl").read_text()
    again = tmp_path / "again.jsonl"
    write_predictions(again, scored.predictions, overwrite=False)
    assert again.read_text() == inside


def test_the_yardstick_is_a_float32_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(measure, "_now", lambda _: seen.append(torch.get_float32_matmul_precision()) or 0.0)
    with float32_products("medium"):
        measure.seconds_of_product(CPU, size=2, repeats=1, warm_up=1)
        assert torch.get_float32_matmul_precision() == "medium"
    assert set(seen) == {"highest"}
