"""``mesm prepare check`` compares frame counts with durations, which detects features of other videos."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from mesm_core.build.check import frame_counts
from mesm_core.config.load import load_config
from mesm_core.data.readers import make_reader, read_split
from tests.cli.commands.checks import altered, check
from tests.cli.small_run import FIXED
from tests.conftest import Trained


def rotated(trained: Trained, path: Path) -> Path:
    """Write the features with each video's under the name of the next one."""
    with h5py.File(trained.paths.features[0]) as source, h5py.File(path, "w") as target:
        names = sorted(source)
        for name, other in zip(names, names[1:] + names[:1], strict=True):
            target[name] = source[other][()]
    return path


@pytest.mark.parametrize("clip_len", ["-1", "2"])
def test_features_of_other_videos_are_detected(mesm, trained: Trained, tmp_path: Path, clip_len: str) -> None:
    features = rotated(trained, tmp_path / "features.hdf5")
    found = check(mesm, trained, "--features", features, "--set", f"dataset.clip_len={clip_len}")
    level, message = found["features.hdf5 frames"]
    assert level == "error"
    assert "of 14 videos have frames that contradict their durations at 0." in message
    assert "the features of other videos?" in message
    table = mesm(
        *["prepare", "check", "--dataset", "tacos", "--data-dir", trained.root, "--glove", trained.paths.text],
        *[*FIXED, "--features", features],
    )
    assert table.code == 2


def test_a_single_wrong_video_is_named(mesm, trained: Trained, tmp_path: Path) -> None:
    features = altered(trained, tmp_path / "cut.hdf5", lambda vid, x: x[:10] if vid == "val-001" else x)
    level, message = check(mesm, trained, "--features", features)["cut.hdf5 frames"]
    duration = next(
        q.duration for q in read_split("tacos", trained.paths.annotations, "val").queries if q.vid == "val-001"
    )
    assert level == "warning"
    assert message.startswith("1 of 14 videos have frames")
    assert f"val-001 has 10 for {duration:.4g} s, not {duration / 2:.0f}" in message


def test_correct_features_pass(mesm, trained: Trained) -> None:
    found = check(mesm, trained)
    assert found["c3d.hdf5 frames"] == ("ok", "consistent with the durations of all 14 videos at 0.5 frames/s")


def test_the_check_reads_no_frames(mesm, trained: Trained, tmp_path: Path) -> None:
    """Frame counts come from the shapes, so the content of the datasets does not matter."""
    with h5py.File(trained.paths.features[0]) as source, h5py.File(tmp_path / "f.hdf5", "w") as target:
        for vid, node in source.items():
            target.create_dataset(vid, data=np.zeros(node.shape, np.float16))
    assert check(mesm, trained, "--features", tmp_path / "f.hdf5")["f.hdf5 frames"][0] == "ok"


@pytest.mark.parametrize(
    ("dataset", "rate"), [("charades", 2), ("charades-cd", 1), ("charades-cg", 6), ("tacos", 1), ("tacos", 3),
                          ("qvhighlights", 0.5)]
)  # fmt: skip
def test_real_durations_pass_and_exchanged_ones_fail(shared: Path, dataset: str, rate: float) -> None:
    """The frame counts are those of planted features: rounded, at least 8 and at most 400."""
    config = load_config(dataset)
    folder = shared / "data" / config.dataset.annotations
    durations = {
        query.vid: query.duration for split in make_reader(dataset).splits
        for query in read_split(dataset, folder, split).queries
    }  # fmt: skip
    lengths = {vid: int(np.clip(round(seconds * rate), 8, 400)) for vid, seconds in durations.items()}
    assert frame_counts("x", lengths, durations).level == "ok"
    names = list(lengths)
    order = np.random.default_rng(0).permutation(len(names))
    exchanged = {vid: lengths[names[other]] for vid, other in zip(names, order, strict=True)}
    found = frame_counts("x", exchanged, durations)
    assert found.level == "error", found.message
