"""What is refused about families of seeds: seeds, options, damaged records, folders in use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mesm_core.errors import ConfigError, DataError
from mesm_core.training.directory import claimed
from mesm_core.training.family import read_summary
from mesm_core.training.repeat import read_repeat
from mesm_core.training.seeds import parse_seeds
from mesm_core.training.start import Given
from tests.conftest import Result, Trained
from tests.training.families import family_words, write_family

Mesm = Callable[..., Result]


@pytest.fixture(scope="module")
def family(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family with two runs that are the same."""
    folder = tmp_path_factory.mktemp("runs") / "tacos-default"
    return write_family(folder, {2019: trained.run, 2020: trained.run}, trained)


def read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "family.json").read_text()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7,8,7", "repeats 7"),
        ("2019", r"means 2019 runs(.|\n)*train.seed=2019"),
        ("1", "at least 2"),
        ("0", "at least 2"),
        ("5,", "whole numbers"),
        ("-3", "whole numbers"),
        ("", "whole numbers"),
        ("a,b", "whole numbers"),
        ("1.5", "whole numbers"),
        ("²", "whole numbers"),
        ("9" * 5000, "whole numbers"),
        ("1,9223372036854775808", "too large"),
    ],
)
def test_seeds_that_are_no_family_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_seeds(text, 2019)


def test_the_last_seed_is_the_largest() -> None:
    with pytest.raises(ConfigError, match="too large"):
        parse_seeds("2", 2**63 - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "7,7"], "repeats 7"),
        (["--seeds", "7,8", "--set", "train.seed=9"], "Remove one of the two"),
        (["--parallel", "2"], "Add --seeds"),
        (["--seeds", "2", "--gpus", "2"], "trains each run in one process"),
        (["--seeds", "2", "--resume", "x"], "Remove --seeds"),
    ],
)
def test_options_that_contradict_a_family_are_refused(
    trained: Trained, mesm: Mesm, tmp_path: Path, options: list[str], message: str
) -> None:
    words = [*family_words(trained, tmp_path)[:5], *family_words(trained, tmp_path)[7:], *options]
    refused = mesm(*words)
    assert (refused.code, message in refused.err) == (2, True), refused.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    ["{", "3", {}, {"seeds": []}, {"seeds": [1, 1]}, {"seeds": "2019"}, {"seeds": [-1]}, {"parallel": 0},
     {"paths": None}, {"settings": {}}, {"init": 3}],
)  # fmt: skip
def test_a_damaged_record_of_a_family_is_reported(family: Path, tmp_path: Path, mesm: Mesm, damage: Any) -> None:
    folder = tmp_path / "tacos-default"
    folder.mkdir()
    record = damage if isinstance(damage, str) else json.dumps(read(family) | damage) if damage else "{}"
    (folder / "family.json").write_text(record)
    for words in (["train", "--resume", folder], ["runs", "show", folder], ["train", "--like", folder]):
        refused = mesm(*words)
        assert (refused.code, "its family.json is damaged" in refused.err) == (2, True), refused.err
    listed = mesm("runs", tmp_path)
    assert (listed.code, "its family.json is damaged" in listed.err) == (0, True)


def test_a_family_is_no_run(family: Path, mesm: Mesm) -> None:
    with pytest.raises(DataError, match="holds no family"):
        read_summary(family / "seed-2019")
    for words in (["runs", "diff", family, family / "seed-2019"],):
        refused = mesm(*words)
        assert (refused.code, "family of runs" in refused.err) == (2, True), refused.err


def test_a_seed_that_is_not_in_the_family_is_refused(family: Path, mesm: Mesm) -> None:
    refused = mesm("train", "--resume", family, "--member", 5)
    assert (refused.code, "has no seed 5" in refused.err) == (2, True)


def test_a_family_in_use_is_refused(family: Path, mesm: Mesm) -> None:
    with claimed(family):
        refused = mesm("train", "--resume", family)
    assert (refused.code, "Another process is training in" in refused.err) == (2, True)


def test_runs_of_a_family_that_lost_its_record_are_not_taken_for_those_of_a_new_one(
    trained: Trained, family: Path, tmp_path: Path, mesm: Mesm
) -> None:
    """They may have other settings and data."""
    folder = Path(shutil.copytree(family, tmp_path / "tacos-default"))
    (folder / "family.json").unlink()
    words = family_words(trained, tmp_path, "--set", "train.epochs=1", seeds="2")
    refused = mesm(*words)
    assert (refused.code, "holds runs of a family, but no family.json" in refused.err) == (2, True), refused.err
    assert (folder / "seed-2020" / "best.pt").exists()
    done = mesm(*words, "--overwrite")
    assert done.code == 0, done.err
    assert [run.epochs for run in read_summary(folder).runs if run] == [1, 1]


def test_a_family_whose_first_run_has_not_begun_can_be_repeated_but_not_scored(
    trained: Trained, family: Path, tmp_path: Path, mesm: Mesm
) -> None:
    """As after a seed that failed at once."""
    folder = Path(shutil.copytree(family, tmp_path / "tacos-half"))
    shutil.rmtree(folder / "seed-2019")
    repeat = read_repeat(folder, [], Given())
    assert repeat.seeds == (2019, 2020)
    assert repeat.session["data"]
    words = ["--dataset", "tacos", "--split", "val", "--annotations", trained.paths.annotations]
    refused = mesm("score", folder, *words)
    assert (refused.code, f"mesm train --resume {folder}" in refused.err) == (2, True), refused.err
    (folder / "seed-2020" / "config.json").unlink()
    with pytest.raises(DataError, match="no run of the family has begun"):
        read_repeat(folder, [], Given())
