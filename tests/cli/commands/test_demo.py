"""``mesm demo``, from synthetic videos to a clip of a moment."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from mesm_cli.commands import demo
from mesm_core.data.readers.json_lines import read_lines
from mesm_core.video.probe import probe


def test_the_demo_refuses_a_folder_in_use(mesm, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = mesm("demo", "--out", tmp_path)
    assert result.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_demo_runs_and_shows_every_step(mesm, tmp_path: Path, monkeypatch) -> None:
    """Uses a few videos and one epoch, since only the steps are tested."""
    monkeypatch.setattr(demo, "VIDEOS", {"train": 3, "val": 2, "test": 2})
    monkeypatch.setattr(demo, "SETTINGS", demo.SETTINGS.replace("epochs = 40", "epochs = 1"))
    monkeypatch.chdir(tmp_path)
    result = mesm("demo", "--json")
    assert result.code == 0, result.err
    printed = json.loads(result.out)
    assert printed["test"].keys() == set(demo.SHOWN)
    assert printed["video"] == "test-00"
    assert [path.name for path in Path("mesm-demo").glob("*.html")]
    clip = probe(Path(printed["clip"]))
    best = printed["moments"][0]
    assert clip.duration_s == pytest.approx(best["end"] - best["start"], abs=0.2)
    shown = [line for line in result.err.splitlines() if line.startswith("$ mesm ")]
    assert [line.split()[2] for line in shown] == ["extract", "count-tokens", "train", "eval", "locate"]
    for line in shown[3:]:  # from where the demo was started they do the same
        again = mesm(*shlex.split(line)[2:], "--overwrite")
        assert again.code == 0, again.err
    vids = {split: {q.vid for q in read_lines(Path(f"mesm-demo/{split}.jsonl")).queries} for split in demo.VIDEOS}
    assert not vids["test"] & (vids["train"] | vids["val"])
    result = mesm("demo")
    assert (result.code, "--overwrite" in result.err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_demo_model_learns(mesm, tmp_path: Path, seed: int) -> None:
    result = mesm("demo", "--out", tmp_path / "demo", "--seed", seed, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["test"]["MR-full-R1@0.5"] >= 60
