"""Invalid feature files: the error names the file and the reason, and valid files are converted."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest

from mesm_core.data import npy_files
from mesm_core.data.convert import hdf5_to_npy, npy_to_hdf5
from mesm_core.data.features import FeatureStore
from mesm_core.data.npy_files import by_name, find_sources, read_array
from mesm_core.errors import FeatureError, MesmError

GOOD = np.ones((5, 4), np.float32)


def npy(header: str | bytes, data: bytes = b"\0" * 80, version: bytes = b"\x01\x00") -> bytes:
    """Return a .npy file with any header."""
    text = header.encode() if isinstance(header, str) else header
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def described(shape: str, dtype: str = "'<f4'", fortran: bool = False) -> bytes:
    return npy(f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}")


def zipped(name: str, content: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


LIARS = {
    "huge": described("(1000000000000, 512)"),
    "overflowing": described("(4611686018427387904, 4)"),
    "beyond 64 bits": described("(10000000000000000000000000, 4)"),
    "negative": described("(-5, 4)"),
    "both negative": described("(-5, -4)"),
    "huge Fortran": described("(1000000000000, 512)", fortran=True),
    "empty": described("(0, 4)"),
    "scalar": described("()"),
    "structured": described("(5,)", "[('a', '<f4'), ('b', '<f4')]"),
    "objects": described("(5, 4)", "'|O'"),
    "text": described("(5, 4)", "'<U4'"),
    "complex": described("(5, 4)", "'<c8'"),
    "unknown dtype": described("(5, 4)", "'<q99'"),
    "floats as shape": described("(5.0, 4)"),
    "a boolean as shape": described("(True, 4)"),
    "deep header": npy("(" * 3000),
    "no header": npy(b"\xff\0\xff"),
    "version": npy(b"{}", version=b"\x09\x09"),
    "cut": GOOD.tobytes()[:9],
    "nothing": b"",
    "half a number": described("(5, 4)")[:-3],
}
ARCHIVES = {
    "no array": zipped("features", b"hello"),
    "text member": zipped("features.npy", b"hello"),
    "claims terabytes": zipped("features.npy", described("(1000000000000, 512)")),
    "empty archive": zipped("features.npy", b""),
    "damaged": zipped("features.npy", described("(5, 4)"))[:60],
}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", [*LIARS, *ARCHIVES])
def test_an_invalid_file_does_not_stop_a_conversion(tmp_path: Path, name: str, suffix: str) -> None:
    folder = tmp_path / "npy"
    folder.mkdir()
    for number in (1, 3):
        np.save(folder / f"v{number}.npy", GOOD)
    (folder / f"v2{suffix}").write_bytes((LIARS | ARCHIVES)[name])
    report = npy_to_hdf5([find_sources(folder)], tmp_path / "out.hdf5")
    assert report.videos == 2
    assert [Path(where).stem for where, _ in report.bad] == ["v2"]
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert list(file) == ["v1", "v3"]


def test_an_array_with_too_many_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesm_core.hdf5.MOST_VALUES", 10)
    np.savez_compressed(tmp_path / "a.npz", GOOD)
    with pytest.raises(FeatureError, match="more than any video has"):
        read_array(tmp_path / "a.npz")


@pytest.mark.skipif(os.name != "posix", reason="names are UTF-16 elsewhere")
def test_names_that_are_not_utf8_are_reported(mesm, tmp_path: Path) -> None:
    folder = tmp_path / "npy"
    folder.mkdir()
    np.save(folder / "good.npy", GOOD)
    np.save(folder / os.fsdecode(b"caf\xe9.npy"), GOOD)
    result = mesm("prepare", "npy2hdf5", folder, tmp_path / "out.hdf5", "--json")
    assert (result.code, "not UTF-8" in result.err, "caf" in result.err) == (2, True, True)
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert list(file) == ["good"]
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xe9"))
    folder.rename(odd)
    (odd / "caf\udce9.npy").unlink()
    assert mesm("prepare", "npy2hdf5", odd, odd / "\udce9.hdf5").code == 0
    assert mesm("prepare", "npy2hdf5", odd, odd / "\udce9.hdf5").code == 2
    assert mesm("prepare", "hdf52npy", odd / "\udce9.hdf5", odd / "again").code == 0


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999999999}", "(?P<x>", "[" * 9])
def test_invalid_regular_expressions_are_refused(pattern: str) -> None:
    with pytest.raises(FeatureError, match="not a regular expression"):
        by_name([Path("a.npy")], name_regex=pattern)


def test_regular_expressions_have_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy_files, "REGEX_SECONDS", 0.2)
    with pytest.raises(FeatureError, match=r"takes more than 0\.2 seconds"):
        by_name([Path("a" * 60 + "!.npy")], name_regex=r"^(a|aa|a?a)+$")
    with pytest.raises(FeatureError, match="does not match"):
        by_name([Path("a.npy")], name_regex="(b)?a")


def odd_hdf5(path: Path) -> None:
    with h5py.File(path.with_name("other.hdf5"), "w") as other:
        other["there"] = GOOD
    with h5py.File(path, "w") as file:
        file["good"] = GOOD
        file["group/nested"] = GOOD
        file["loop"] = h5py.SoftLink("/loop")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("nowhere.hdf5", "/x")
        file["elsewhere"] = h5py.ExternalLink("other.hdf5", "/there")
        file["text"] = np.array([["a"] * 4] * 5, dtype=object)
        file["compound"] = np.zeros((5, 4), [("a", "f4"), ("b", "f4")])
        file.create_dataset("reference", (5, 4), h5py.ref_dtype)
        file.create_dataset("sparse", (10**9, 512), "f4", chunks=(1000, 512))
        file.create_dataset("unwritten", (5, 4), "f4")
        file.create_dataset("null", data=h5py.Empty("f4"))
        file.create_dataset("complex", data=np.ones((5, 4), np.complex64))
        file.create_dataset("large", data=np.full((5, 4), 1e300))
        for name, source, inner in (("virtual", "nowhere.hdf5", "x"), ("virtual2", "other.hdf5", "y")):
            layout = h5py.VirtualLayout((5, 4), "f4")
            layout[:] = h5py.VirtualSource(source, inner, (5, 4))
            file.create_virtual_dataset(name, layout)
        layout = h5py.VirtualLayout((5, 4), "f4")
        layout[:] = h5py.VirtualSource("other.hdf5", "there", (5, 4))
        file.create_virtual_dataset("virtual3", layout)
        for name, duration in (("d1", "long"), ("d2", [1.0, 2.0]), ("d3", np.nan), ("d4", -1.0)):
            file[name] = GOOD
            file[name].attrs["duration"] = duration


BAD = [
    *("loop", "dangling", "outside", "text", "compound", "reference", "sparse", "unwritten", "null", "complex"),
    *("large", "virtual", "virtual2", "group", "x/y/z", "a\0b", "\ud800", "/", ""),
]


def test_unusual_datasets_are_read_or_refused(tmp_path: Path) -> None:
    odd_hdf5(tmp_path / "a.hdf5")
    store = FeatureStore([tmp_path / "a.hdf5"], dim=4, max_frames=9)
    for name in ("good", "group/nested", "elsewhere", "virtual3"):
        assert store.get(name).shape == (5, 6)
    for name in BAD:
        with pytest.raises(FeatureError):
            store.get(name)
        store.missing([name])
    for name in ("d1", "d2", "d3", "d4"):
        with pytest.raises(FeatureError, match="duration"):
            store.duration(name)
    assert store.duration("good") is None
    store.close()


@pytest.mark.parametrize("name", [*BAD[:13], "../out", "a/../b", "circle"])
def test_unusual_datasets_are_not_written_to_npy(tmp_path: Path, name: str) -> None:
    odd_hdf5(tmp_path / "all.hdf5")
    with h5py.File(tmp_path / "all.hdf5") as whole, h5py.File(tmp_path / "a.hdf5", "w") as file:
        if name == "circle":
            file["g/x"] = GOOD
            file["g/again"] = file["g"]
        elif name in ("loop", "dangling", "outside"):
            file[name] = {
                "loop": h5py.SoftLink("/loop"),
                "dangling": h5py.SoftLink("/nowhere"),
                "outside": h5py.ExternalLink("nowhere.hdf5", "/x"),
            }[name]
        elif name in whole and name != "group" and not name.startswith("virtual"):
            whole.copy(name, file, name)
        elif ".." in name:
            file[name] = GOOD
        else:
            file[name] = h5py.ExternalLink("all.hdf5", f"/{name}")
    if name in ("group", "large"):
        assert hdf5_to_npy(tmp_path / "a.hdf5", tmp_path / "out") == 1
        return
    with pytest.raises(FeatureError, match=r"a\.hdf5|all\.hdf5"):
        hdf5_to_npy(tmp_path / "a.hdf5", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.npy").exists()


def test_groups_become_folders(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["a/b/c"], file["d"] = GOOD, GOOD
        file["e"] = h5py.SoftLink("/a/b/c")
    assert hdf5_to_npy(tmp_path / "a.hdf5", tmp_path / "out") == 3
    assert np.array_equal(np.load(tmp_path / "out" / "a" / "b" / "c.npy"), GOOD)


def test_damaged_hdf5_files_raise_only_our_errors(tmp_path: Path) -> None:
    """With any byte of the metadata changed, the features are read, or the error is a FeatureError."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name in "abc":
            file[name] = GOOD
            file[name].attrs["duration"] = 3.0
    whole = (tmp_path / "a.hdf5").read_bytes()
    random = np.random.default_rng(0)
    for number, place in enumerate(random.integers(0, len(whole), 150)):
        damaged = bytearray(whole)
        damaged[place] ^= int(random.integers(1, 256))
        path = tmp_path / f"{number}.hdf5"
        path.write_bytes(damaged)
        try:
            store = FeatureStore([path], dim=4, max_frames=9)
        except FeatureError:
            continue
        for name in "abc":
            for ask in (store.get, store.duration):
                with suppress(MesmError):
                    ask(name)
            with suppress(MesmError):
                store.require([name])
        store.close()
