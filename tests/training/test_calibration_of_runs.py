"""The last step of a run gives its best checkpoint a calibration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mesm_core.checkpoint import load_checkpoint, weights_hash
from mesm_core.confidence.calibration import calibration_from
from mesm_core.training.directory import BEST, RECORD
from mesm_core.training.events import Busy, Calibrated, Event, Finished, Stopped
from mesm_core.training.record import read_run
from mesm_core.training.run import Run
from tests.cli.calibrated import train_calibrated
from tests.conftest import Trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_calibrated(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs"))


def resumed(run: Trained) -> Run:
    return Run.open(run.config, run.paths, run.run, device=torch.device("cpu"), resume=True)


def without_calibration(run: Trained) -> None:
    """Remove the calibration from the checkpoint, as if the run had been killed before its last step."""
    content = torch.load(run.best, weights_only=True)
    content["calibration"] = {}
    torch.save(content, run.best)


def test_the_best_checkpoint_has_a_calibration_of_its_weights(run: Trained) -> None:
    checkpoint = load_checkpoint(run.best)
    calibration = calibration_from(checkpoint.calibration, model=weights_hash(checkpoint.model))
    assert calibration is not None
    assert calibration.data == "tacos val"
    assert min(calibration.fitted.values()) >= 30
    assert set(calibration.report) >= {"questions", "in_domain", "out_of_domain", "answers", "moments", "kept"}


def test_the_record_of_the_run_has_the_figures(run: Trained) -> None:
    found = read_run(run.run).calibration
    assert found is not None
    assert found["data"] == "tacos val"
    assert 0 <= found["ECE answers"] <= 100


def test_a_run_that_was_killed_before_its_calibration_is_calibrated_when_it_is_resumed(run: Trained) -> None:
    before = load_checkpoint(run.best)
    without_calibration(run)
    events = list(resumed(run).train())
    assert [type(event) for event in events if isinstance(event, Calibrated | Finished)] == [Calibrated, Finished]
    after = load_checkpoint(run.best)
    assert after.calibration == before.calibration
    assert all(torch.equal(after.model[name], value) for name, value in before.model.items())


def test_a_calibrated_run_is_not_calibrated_again(run: Trained) -> None:
    assert not [event for event in resumed(run).train() if isinstance(event, Calibrated)]


def test_a_calibration_that_is_interrupted_leaves_the_checkpoint_whole(run: Trained) -> None:
    without_calibration(run)
    before = (run.run / BEST).read_bytes()
    again = resumed(run)
    events: list[Event] = []
    for event in again.train():
        events.append(event)
        if isinstance(event, Busy) and event.what == "Calibrating":
            again.ask_to_stop()
    assert isinstance(events[-1], Stopped)
    assert (run.run / BEST).read_bytes() == before
    assert json.loads((run.run / RECORD).read_text())["sessions"][-1]["end"] == "interrupted"
    assert [event for event in resumed(run).train() if isinstance(event, Calibrated)]


def test_a_run_with_few_queries_says_why_it_has_no_calibration(trained: Trained, tmp_path: Path) -> None:
    found = read_run(trained.run).calibration
    assert found is not None
    assert "30 queries" in found["reason"]
    assert load_checkpoint(trained.best).calibration == {}
