"""What torchrun says about a process, from its environment variables."""

from __future__ import annotations

import pytest

from mesm_core.torchrun import Process, this_process


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Process()),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, Process()),
        ({"LOCAL_RANK": "2"}, Process()),
        ({"WORLD_SIZE": "many", "LOCAL_RANK": "2"}, Process()),
        (
            {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"},
            Process(world=4, rank=3, local_world=2, local_rank=1),
        ),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, Process(4, 3, 2, 1)),
    ],
)
def test_what_torchrun_says(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: Process) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert this_process() == expected
