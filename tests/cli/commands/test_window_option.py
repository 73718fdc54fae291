"""``--window`` of predict and eval: the default, the JSON output, and invalid values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Trained

QUERY = "The man cuts a pan."


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "long.npy", np.random.default_rng(0).normal(size=(450, 12)).astype(np.float32))
    return tmp_path / "long.npy"


def test_predict_divides_long_videos_into_windows(mesm, trained: Trained, long_file: Path) -> None:
    words = ["predict", trained.best, QUERY, "--features", long_file, "--duration", 900, "--json"]
    found = {}
    for window in (None, "auto", "off", "50"):
        result = mesm(*words, *([] if window is None else ["--window", window]))
        assert result.code == 0, result.err
        (found[window],) = json.loads(result.out)
        assert ("are averaged into 40" in " ".join(result.err.split())) == (window == "off")
    assert found[None] == found["auto"]
    assert found["off"]["window"] is None
    assert (found["50"]["window"], found["50"]["seen"], found["50"]["warnings"]) == (50, 900, [])
    assert len(found["50"]["saliency"]) == 450
    assert len(found["off"]["saliency"]) == 40
    assert 0 < found["auto"]["window"] < 200


def test_a_submission_of_a_long_video(mesm, trained: Trained, long_file: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "out.jsonl", tmp_path / "out.html"
    words = ["predict", trained.best, QUERY, "--features", long_file, "--duration", 900]
    assert mesm(*words, "--output", out, "--plot", page).code == 0
    rows = np.array(json.loads(out.read_text())["pred_relevant_windows"])
    assert 4 < len(rows) <= 100
    assert (np.diff(rows[:, 2]) <= 0).all()
    assert rows[:, 1].max() <= 900
    assert QUERY in page.read_text()
    assert "15:00" in mesm(*words).out


def test_eval_follows_the_published_protocol(mesm, trained: Trained, tmp_path: Path) -> None:
    words = ["eval", trained.best, "--data-dir", trained.root, "--split", "test", "--json", "--output"]
    tables = {}
    for name, window in (("usual", []), ("off", ["--window", "off"]), ("cut", ["--window", "40"])):
        result = mesm(*words, tmp_path / f"{name}.jsonl", *window)
        assert result.code == 0, result.err
        tables[name] = json.loads(result.out)
    assert tables["usual"]["full"] == tables["off"]["full"]
    assert (tables["usual"]["window"], tables["usual"]["queries_in_windows"]) == ("off", 0)
    assert (tables["cut"]["window"], tables["cut"]["queries_in_windows"]) == (40, tables["cut"]["queries"])
    assert (tmp_path / "usual.jsonl").read_text() == (tmp_path / "off.jsonl").read_text()
    assert (tmp_path / "usual.jsonl").read_text() != (tmp_path / "cut.jsonl").read_text()


@pytest.mark.parametrize("value", ["x", "", "nan", "inf", "-1", "0", "AUTO", "1,5"])
@pytest.mark.parametrize("command", ["predict", "eval"])
def test_invalid_windows_are_refused(mesm, trained: Trained, long_file: Path, command: str, value: str) -> None:
    more = [QUERY, "--features", long_file, "--duration", 900] if command == "predict" else []
    result = mesm(command, trained.best, *more, f"--window={value}")
    assert (result.code, result.out) == (2, "")
    assert "window must be auto, off, or a positive number of seconds" in " ".join(result.err.split())
