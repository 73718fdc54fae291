"""Features that say what they were made with are held against the settings and a checkpoint's training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from mesm_core.build import Paths, build_features, build_split
from mesm_core.build.check import check_data
from mesm_core.build.origins import origin_problems
from mesm_core.build.text import build_text
from mesm_core.checkpoint import load_checkpoint, save_checkpoint
from mesm_core.data.statistics import data_statistics, differences
from tests.conftest import Trained, small_config

MADE = {"backbone": "clip-b32", "weights": "a" * 32, "clip_len": 1.0, "interpolation": "bilinear"}
Label = Callable[..., Paths]


@pytest.fixture
def label(trained: Trained, tmp_path: Path) -> Label:
    """Copy the invented features, with attributes on the videos, and return the paths with the copy."""

    def copied(*videos: str, **attributes: Any) -> Paths:
        target = tmp_path / "c3d.hdf5"
        shutil.copy(trained.paths.features[0], target)
        with h5py.File(target, "r+") as file:
            for name in videos or file:
                file[name].attrs.update(MADE | attributes)
        return replace(trained.paths, features=(target,))

    return copied


def statistics_of(paths: Paths) -> dict[str, Any]:
    import torch

    config = small_config()
    text = build_text(config, paths, device=torch.device("cpu"))
    return data_statistics(build_split(config, paths, "train", text, build_features(config, paths)).dataset)


def test_facts_tell_what_features_were_made_with(label: Label, trained: Trained) -> None:
    then = statistics_of(label())
    assert then["origins"] == [MADE]
    assert list(differences(then, then)) == []
    assert list(differences(then, statistics_of(label(backbone="pixels", weights="b" * 32)))) == [
        "c3d.hdf5 was made with pixels, weights bbbbbbbbbbbb, the features of training with clip-b32, weights "
        "aaaaaaaaaaaa."
    ]
    assert list(differences(then, statistics_of(trained.paths))) == []
    older = {name: value for name, value in then.items() if name != "origins"}
    assert list(differences(older, statistics_of(label(clip_len=3.0)))) == []


@pytest.mark.parametrize(
    ("settings", "changes", "statistics", "problems"),
    [
        ([], {}, {}, []),
        (["dataset.clip_len=1"], {}, {}, []),
        (["dataset.clip_len=2"], {}, {}, ["rows of 1 s, but dataset.clip_len is 2"]),
        (
            ["dataset.features=['x/slowfast.hdf5']"],
            {},
            {},
            ["made with clip-b32, but the preset's slowfast.hdf5 is made with slowfast-r50"],
        ),
        ([], {}, {"origins": [MADE]}, []),
        (
            [],
            {"interpolation": "bicubic"},
            {"origins": [MADE]},
            ["made with interpolation bicubic, the features of training with interpolation bilinear"],
        ),
        ([], {}, {"origins": [{}]}, []),
    ],
)
def test_problems(
    label: Label, settings: list[str], changes: dict[str, Any], statistics: dict[str, Any], problems: list[str]
) -> None:
    path = label(**changes).features[0]
    with h5py.File(path) as file:
        names = list(file)
    made, found = origin_problems(small_config(*settings), path, names, place=0, statistics=statistics)
    assert found == problems
    assert made.startswith("clip-b32, weights aaaaaaaaaaaa")


def test_videos_of_different_settings_in_one_file(label: Label) -> None:
    paths = label("test-000", "test-001")
    found = [finding for finding in check_data(small_config(), paths) if finding.subject == "c3d.hdf5 origin"]
    assert [finding.level for finding in found] == ["error"]
    assert "made with different settings" in found[0].message


def test_prepare_check_for_a_checkpoint(label: Label, trained: Trained, tmp_path: Path, mesm: Any) -> None:
    checkpoint = load_checkpoint(trained.best)
    best = tmp_path / "best.pt"
    save_checkpoint(best, replace(checkpoint, data_statistics=checkpoint.data_statistics | {"origins": [MADE]}))
    words = ["prepare", "check", "--checkpoint", best, "--features"]
    done = mesm(*words, label().features[0])
    assert done.code == 0, done.err
    assert "made with clip-b32, weights aaaaaaaaaaaa, clip_len 1" in " ".join(done.out.split())
    done = mesm(*words, label(backbone="pixels").features[0])
    assert done.code == 2
    assert "made with pixels, the features of training with clip-b32" in " ".join(done.out.split())
    assert mesm(*words, trained.paths.features[0]).code == 0
    assert mesm("prepare", "check", "--checkpoint", best, "--dataset", "tacos").code == 2
