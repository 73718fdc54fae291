"""Converting many small files makes few calls of h5py's slow functions, and uses threads only for large files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import AttributeManager

from mesm_core.data import convert, rawcopy
from mesm_core.data.convert import Options, npy_to_hdf5
from mesm_core.data.npy_files import find_sources

FILES = 12


def sources(folder: Path, *, frames: int = 3) -> Path:
    folder.mkdir()
    for number in range(FILES):
        np.save(folder / f"v{number:02}.npy", np.full((frames, 4), number, np.float32))
    return folder


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[object]:
    """Return a list to which every call of ``owner.name`` appends its arguments."""
    calls: list[object] = []
    original = getattr(owner, name)

    def call(*args: object, **options: object) -> object:
        calls.append(args)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, call)
    return calls


def test_conversion_avoids_dataset_lookups_and_the_attribute_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_sources(sources(tmp_path / "npy"))
    looked_up = counted(monkeypatch, h5py.Group, "__getitem__")
    mapped = counted(monkeypatch, AttributeManager, "__setitem__")
    report = npy_to_hdf5([found], tmp_path / "out.hdf5", options=Options(fps=2))
    assert report.videos == FILES
    assert looked_up == mapped == []


def test_equal_headers_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_sources(sources(tmp_path / "npy"))
    rawcopy._parsed.cache_clear()
    parsed = counted(monkeypatch, np.lib.format, "read_array_header_1_0")
    assert len({rawcopy.raw_array(path).offset for path in found}) == 1
    assert len(parsed) == 1


@pytest.mark.parametrize("frames", [3, rawcopy.FIRST_READ // 16 + 1])
def test_only_large_files_are_handed_to_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    found = find_sources(sources(tmp_path / "npy", frames=frames))
    handed = counted(monkeypatch, convert.ThreadPoolExecutor, "submit")
    npy_to_hdf5([found], tmp_path / "out.hdf5")
    copied = sum(call[1] is convert.copy_numbers for call in handed)
    assert bool(copied) == (frames > 3)


def test_attributes_match_those_of_h5py(tmp_path: Path) -> None:
    found = find_sources(sources(tmp_path / "größe"))
    npy_to_hdf5([found], tmp_path / "out.hdf5", options=Options(fps=2))
    with h5py.File(tmp_path / "out.hdf5", "a") as file:
        file["v00"].attrs.update({"text": str(found[1]), "real": 1.5, "whole": 3})
        attrs = dict(file["v01"].attrs)
        assert attrs == {"source": str(found[1]), "fps": 2.0, "duration": 1.5, "frames": 3}
        for name, alike in {"source": "text", "fps": "real", "duration": "real", "frames": "whole"}.items():
            ours, theirs = file["v01"].attrs.get_id(name), file["v00"].attrs.get_id(alike)
            assert ours.get_type() == theirs.get_type()
            assert ours.get_space().get_simple_extent_dims() == theirs.get_space().get_simple_extent_dims() == ()
            assert type(file["v01"].attrs[name]) is type(file["v00"].attrs[alike])


def test_the_first_files_are_copied_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_sources(sources(tmp_path / "npy"))
    read = counted(monkeypatch, convert, "read_array")
    npy_to_hdf5([found], tmp_path / "out.hdf5")
    assert read == []
