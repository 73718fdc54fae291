from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesm_core.data.convert import Options, hdf5_to_npy, npy_to_hdf5
from mesm_core.data.npy_files import by_name, find_sources, parsed, read_array
from mesm_core.errors import FeatureError, OutputError


def save(folder: Path, name: str, array: np.ndarray) -> Path:
    np.save(folder / name, array)
    return folder / name


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 9), dim=st.integers(1, 5), dtype=st.sampled_from(["float16", "float32", "float64", "int32"])
)
def test_conversion_keeps_the_arrays(
    tmp_path_factory: pytest.TempPathFactory, frames: int, dim: int, dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("npy")
    array = np.random.default_rng(0).normal(size=(1, frames, 1, dim)).astype(dtype)
    if frames == 1 or dim == 1:
        array = array.reshape(frames, dim)
    save(folder, "a.b.npy", array)
    npy_to_hdf5([find_sources(folder)], folder / "out.hdf5", options=Options(fps=2.0))
    with h5py.File(folder / "out.hdf5") as file:
        assert list(file) == ["a.b"]
        assert file["a.b"].dtype == (dtype if dtype in ("float16", "float32") else "float32")
        assert np.array_equal(file["a.b"][()], array.reshape(frames, dim).astype(file["a.b"].dtype))
        assert file["a.b"].attrs["duration"] == frames / 2


def test_conversion_reports_invalid_files_and_keeps_the_others(tmp_path: Path) -> None:
    save(tmp_path, "good.npy", np.ones((2, 3), np.float32))
    save(tmp_path, "nan.npy", np.full((2, 3), np.nan))
    save(tmp_path, "deep.npy", np.ones((2, 3, 4)))
    save(tmp_path, "empty.npy", np.ones((0, 4)))
    save(tmp_path, "text.npy", np.array([["a"]]))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    report = npy_to_hdf5([find_sources(tmp_path)], tmp_path / "out.hdf5")
    assert report.videos == 1
    reasons = {Path(path).name: reason for path, reason in report.bad}
    assert set(reasons) == {"nan.npy", "deep.npy", "empty.npy", "text.npy", "object.npy", "cut.npy"}
    assert "Python objects" in reasons["object.npy"]
    assert "squeeze" in reasons["deep.npy"]


def test_npz_keys_are_chosen_or_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.ones((1, 2)), b=np.zeros((1, 2)))
    np.savez(tmp_path / "named.npz", features=np.ones((1, 2)), other=np.zeros((1, 2)))
    with pytest.raises(FeatureError, match="several arrays"):
        read_array(tmp_path / "two.npz")
    assert read_array(tmp_path / "two.npz", key="b").sum() == 0
    assert read_array(tmp_path / "named.npz").sum() == 2
    with pytest.raises(FeatureError, match="no array 'c'"):
        read_array(tmp_path / "two.npz", key="c")


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_conversion_concatenates_sources(tmp_path: Path, compression: str | None) -> None:
    for name, frames in (("a", 5), ("b", 6)):
        (tmp_path / name).mkdir()
        save(tmp_path / name, "feat_v1.npy", np.full((frames, 2), frames, np.float32))
    parts = [find_sources(tmp_path / name) for name in ("a", "b")]
    chosen = Options(name_regex=r"feat_(\w+)", compression=compression)
    npy_to_hdf5(parts, tmp_path / "out.hdf5", options=chosen)
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert file["v1"].shape == (5, 4)
        assert file["v1"][0].tolist() == [5, 5, 6, 6]
        assert file["v1"].chunks == (None if compression is None else (5, 4))
    with pytest.raises(FeatureError, match="5 and 6 frames"):
        npy_to_hdf5(parts, tmp_path / "other.hdf5", options=replace(chosen, max_skew=0))
    save(tmp_path / "a", "feat_v2.npy", np.ones((5, 2)))
    with pytest.raises(FeatureError, match="Source 2 lacks 1 of 2 videos: v2"):
        npy_to_hdf5([find_sources(tmp_path / "a"), parts[1]], tmp_path / "other.hdf5", options=chosen)


def test_videos_of_another_width_are_skipped(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path, f"v{number:02}.npy", np.ones((3, 5 if number in (3, 11) else 4), np.float32))
    report = npy_to_hdf5([find_sources(tmp_path)], tmp_path / "out.hdf5")
    assert report.videos == 10
    assert [reason for _, reason in report.bad] == ["it is 5 wide, the others are 4"] * 2


def test_raw_copies_detect_nan_and_keep_the_file_intact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"v{n:02}": rng.normal(size=(700, 300)).astype(np.float16 if n % 2 else np.float32) for n in range(14)}
    for name, array in arrays.items():
        save(tmp_path, f"{name}.npy", array)
    spoilt = arrays.pop("v12")
    spoilt[650, 7] = np.inf
    save(tmp_path, "v12.npy", spoilt)
    report = npy_to_hdf5([find_sources(tmp_path)], tmp_path / "out.hdf5")
    assert [Path(where).name for where, _ in report.bad] == ["v12.npy"]
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert sorted(file) == sorted(arrays)
        for name, array in arrays.items():
            assert np.array_equal(file[name][()], array)


def test_resume_adds_missing_videos(tmp_path: Path) -> None:
    sources = [save(tmp_path, f"v{n}.npy", np.full((2, 3), n, np.float32)) for n in range(4)]
    out, work = tmp_path / "out.hdf5", tmp_path / "out.hdf5.part"
    npy_to_hdf5([sources[:2]], out)
    out.rename(work)
    with h5py.File(work, "a") as file:  # as a kill between allocation and completion leaves it
        del file["v1"].attrs["frames"]
    with pytest.raises(OutputError, match="--resume"):
        npy_to_hdf5([sources], out)
    report = npy_to_hdf5([sources], out, resume=True)
    assert (report.videos, report.skipped) == (3, 1)
    assert not work.exists()
    with h5py.File(out) as file:
        assert [file[f"v{n}"][0, 0] for n in range(4)] == [0, 1, 2, 3]
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an HDF5 file"):
        npy_to_hdf5([sources], tmp_path / "mine.txt", resume=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    work.write_bytes(b"damaged")
    out.unlink()
    assert npy_to_hdf5([sources], out, resume=True).videos == 4


def test_npy_files_survive_a_round_trip(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float16)
    npy_to_hdf5([[save(tmp_path, "v.npy", array)]], tmp_path / "out.hdf5")
    assert hdf5_to_npy(tmp_path / "out.hdf5", tmp_path / "back") == 1
    assert np.array_equal(np.load(tmp_path / "back" / "v.npy"), array)
    with pytest.raises(OutputError, match="already exists"):
        hdf5_to_npy(tmp_path / "out.hdf5", tmp_path / "back")
    with pytest.raises(FeatureError, match="No feature file"):
        hdf5_to_npy(tmp_path / "none.hdf5", tmp_path / "back")


def test_lists_are_read_and_invalid_name_patterns_refused(tmp_path: Path) -> None:
    path = save(tmp_path, "a.npy", np.ones((1, 1)))
    (tmp_path / "list.txt").write_text(f"{path}\n\n")
    assert find_sources(tmp_path / "list.txt") == [path]
    with pytest.raises(FeatureError, match=r"does not match a\.npy"):
        by_name([path], name_regex="z(.)")
    with pytest.raises(FeatureError, match="not a regular expression"):
        by_name([path], name_regex="(")


def test_missing_invalid_and_existing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"has no \.npy"):
        find_sources(tmp_path / "*.npy")
    with pytest.raises(FeatureError, match="The folder"):
        find_sources(tmp_path)
    bad = save(tmp_path, "bad.npy", np.full((1, 1), np.nan))
    with pytest.raises(FeatureError, match="None of the 1 videos"):
        npy_to_hdf5([[bad]], tmp_path / "out.hdf5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.npy"]
    (tmp_path / "out.hdf5").write_text("precious")
    good = save(tmp_path, "good.npy", np.ones((1, 1)))
    with pytest.raises(OutputError, match="already exists"):
        npy_to_hdf5([[good]], tmp_path / "out.hdf5")
    assert (tmp_path / "out.hdf5").read_text() == "precious"
    (tmp_path / "sub").mkdir()
    save(tmp_path / "sub", "good.npy", np.ones((1, 1)))
    with pytest.raises(FeatureError, match="both be written as 'good'"):
        by_name(find_sources(tmp_path))


def test_parsing_is_repeated_after_a_spurious_system_error() -> None:
    answers = iter([SystemError("AST constructor recursion depth mismatch"), "header"])

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert parsed(read) == "header"

    def broken() -> str:
        raise SystemError("always")

    with pytest.raises(SystemError):
        parsed(broken)
