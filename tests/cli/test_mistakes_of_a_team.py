"""Errors that all processes of a training have are printed by one process on each machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mesm_cli.commands.training_display import Signals, _hint_to_resume
from mesm_cli.errors import without_usage_errors
from mesm_core.errors import FeatureError, MesmError
from mesm_core.processes import Team
from mesm_core.training.finite import NotFiniteError


def in_team(monkeypatch: pytest.MonkeyPatch, *, local_rank: int) -> None:
    """Set the environment of one of two processes on this machine."""
    for name, value in {"WORLD_SIZE": 2, "LOCAL_RANK": local_rank, "RANK": local_rank + 2}.items():
        monkeypatch.setenv(name, str(value))


def code_of(words: list[str]) -> int:
    """Run the command line as torchrun's processes do, and return the exit code."""
    from mesm_cli.app import app

    sys.argv = ["mesm", *words]
    with pytest.raises(SystemExit) as done:
        without_usage_errors(app)
    assert isinstance(done.value.code, int)
    return done.value.code


def test_only_the_first_process_on_a_machine_prints_an_error(mesm, monkeypatch: pytest.MonkeyPatch) -> None:
    for local_rank, times in ((0, 1), (1, 0)):
        in_team(monkeypatch, local_rank=local_rank)
        done = mesm("train", "--dataset", "nothing")
        assert done.code == 2
        assert done.err.count("Error:") == times


def test_other_commands_print_errors_in_any_process(mesm, monkeypatch: pytest.MonkeyPatch) -> None:
    in_team(monkeypatch, local_rank=1)
    assert "nothing" in mesm("config", "show", "--dataset", "nothing").err


@pytest.mark.parametrize("words", [["train", "--no-such-option"], ["train", "--gpus", "many"]])
def test_a_mistyped_option_is_not_printed_again(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    assert code_of(words) == 2
    assert capsys.readouterr() == ("", "")


def test_help_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from mesm_cli.app import app

    monkeypatch.setattr(sys, "argv", ["mesm", "train", "--help"])
    without_usage_errors(app)


@pytest.mark.parametrize(
    ("cause", "printed"), [(None, "Error: Process 3: v1: no features."), (NotFiniteError.__new__(NotFiniteError), "")]
)
def test_an_error_of_one_training_process_is_printed_by_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    cause: MesmError | None,
    printed: str,
) -> None:
    in_team(monkeypatch, local_rank=1)
    monkeypatch.setattr(sys, "argv", ["mesm", "train"])
    handler = Signals(SimpleNamespace(team=Team(3, 4), directory=tmp_path))
    handler.stepping = True
    with pytest.raises(FeatureError), _hint_to_resume(handler, tmp_path):
        raise FeatureError("v1: no features.") from cause
    assert capsys.readouterr().err.strip() == printed


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell here")
def test_a_closed_standard_input_is_treated_as_empty() -> None:
    command = '"$0" -m mesm_cli.app predict nothing.pt --video v1 <&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "fault in mesm" not in done.stderr


def test_a_folder_that_is_taken_is_an_error_of_the_process_that_writes(
    mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tacos-default").mkdir()
    (tmp_path / "tacos-default" / "last.pt").touch()
    in_team(monkeypatch, local_rank=0)  # the first process of the second machine
    words = ["train", "--dataset", "tacos", "--runs-dir", tmp_path, "--data-dir", tmp_path / "no data"]
    assert "no data" in mesm(*words).err
    monkeypatch.setenv("RANK", "0")
    assert "tacos-default" in mesm(*words).err
