"""Features in .tar, .tar.gz and .zip files with the layout of published archives, and hostile archives."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from mesm_core.data import archives
from mesm_core.data.archives import Archive, entries
from mesm_core.data.convert import Conversion, Options, npy_to_hdf5
from mesm_core.data.npy_files import find_sources
from mesm_core.errors import FeatureError, OutputError

VIDEOS = [f"s{number}-d5" for number in range(12)]
ENDINGS = [".tar", ".tar.gz", ".tgz", ".zip"]


def npz(width: int, seed: int = 0, rows: int = 7) -> bytes:
    file = io.BytesIO()
    np.savez(file, features=np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32))
    return file.getvalue()


def published(folder: str = "") -> dict[str, bytes]:
    """Return files in the layout of the published archives: a folder per kind, VID.npz with the key ``features``."""
    files = {f"{folder}clip_features/{vid}.npz": npz(4, seed) for seed, vid in enumerate(VIDEOS)}
    files |= {f"{folder}slowfast_features/{vid}.npz": npz(6, 100 + seed) for seed, vid in enumerate(VIDEOS)}
    return files | {f"{folder}README.txt": b"text", f"{folder}clip_features/._s0-d5.npz": b"attributes of macOS"}


def tar_info(name: str, content: bytes = b"", **about: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in about.items():
        setattr(info, key, value)
    return info


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """Write an archive in the format of its suffix."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name, content in files.items():
            tar.addfile(tar_info(name, content), io.BytesIO(content))
    return path


def convert(source: str | Path, out: Path, **options: object) -> Conversion:
    return npy_to_hdf5([find_sources(source)], out, options=Options(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ending", "top"),
    [(".tar.gz", ""), (".tar.gz", "./"), (".tar", "moment_detr_features/"), (".tgz", ""), (".zip", "")],
)
def test_a_folder_of_a_published_archive_is_converted(tmp_path: Path, ending: str, top: str) -> None:
    path = pack(tmp_path / f"features{ending}", published(top))
    report = convert(f"{path}::clip_features", tmp_path / "clip_image.hdf5", name_format="{}.avi")
    assert (report.videos, report.bad, report.width) == (12, [], 4)
    convert(f"{path}::slowfast_features", tmp_path / "slowfast.hdf5", dtype="float16")
    with h5py.File(tmp_path / "clip_image.hdf5") as clip, h5py.File(tmp_path / "slowfast.hdf5") as slowfast:
        assert list(clip) == sorted(f"{vid}.avi" for vid in VIDEOS)
        assert list(slowfast) == sorted(VIDEOS)
        wanted = np.random.default_rng(3).normal(size=(7, 4)).astype(np.float32)
        assert np.array_equal(clip["s3-d5.avi"][()], wanted)
        assert (slowfast["s3-d5"].shape, slowfast["s3-d5"].dtype) == ((7, 6), np.float16)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["clip_image.hdf5", "slowfast.hdf5", path.name])


def test_the_command_converts_archives(mesm, tmp_path: Path) -> None:
    pack(tmp_path / "tacos.tar.gz", published())
    source, out = f"{tmp_path}/tacos.tar.gz::clip_features", tmp_path / "c.hdf5"
    done = mesm("prepare", "npy2hdf5", source, out, "--name-format", "{}.avi", "--json")
    assert done.code == 0, done.err
    with h5py.File(out) as file:
        assert "s0-d5.avi" in file
    failed = mesm("prepare", "npy2hdf5", "--concat", source, source, tmp_path / "d.hdf5")
    assert failed.code == 2
    assert "Leave out --concat" in failed.err
    failed = mesm("prepare", "npy2hdf5", source, tmp_path / "d.hdf5", "--name-format", "x.avi")
    assert failed.code == 2
    assert "has no {}" in failed.err


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_is_read_once_and_existing_videos_are_skipped(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive is read once, from start to end; existing videos are skipped."""
    path = pack(tmp_path / f"f{ending}", published())
    opened: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (opened.append(self.name), real(self, *a, **k))[1])
    convert(f"{path}::clip_features", tmp_path / "out.hdf5")
    assert opened.count(path.name) == 1
    loaded: list[str] = []
    load = archives._load
    monkeypatch.setattr(archives, "_load", lambda p, found: (loaded.append(found.name), load(p, found))[1])
    report = npy_to_hdf5([find_sources(f"{path}::clip_features")], tmp_path / "out.hdf5", resume=True)
    assert (report.videos, report.skipped, loaded) == (0, 12, [])


@pytest.mark.parametrize("archived", [True, False], ids=["archive", "folder"])
def test_memory_for_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archived: bool) -> None:
    """Reading ahead stops at HELD_BYTES, and all files are written."""
    from mesm_core.data import convert as module

    path = pack(tmp_path / "f.tar", published())
    if not archived:
        with tarfile.open(path) as packed:
            packed.extractall(tmp_path, filter="data")
    monkeypatch.setattr(module, "HELD_BYTES", 1)
    waiting: list[int] = []
    finish = module._finish
    monkeypatch.setattr(module, "_finish", lambda *a: (waiting.append(len(started)), started.pop(), finish(*a))[2])
    started: list[int] = []
    start = module._start
    monkeypatch.setattr(module, "_start", lambda *a: (started.append(1), start(*a))[1])
    source = f"{path}::clip_features" if archived else str(tmp_path / "clip_features")
    assert convert(source, tmp_path / "out.hdf5").videos == 12
    assert set(waiting) == {1}


def test_progress_counts_bytes_of_the_archive(tmp_path: Path) -> None:
    path = pack(tmp_path / "f.tar", published())
    seen: list[int] = []
    npy_to_hdf5([find_sources(f"{path}::clip_features")], tmp_path / "out.hdf5", progress=seen.append)
    assert 0 < sum(seen) <= path.stat().st_size


def test_sources_in_archives_are_found_or_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "f.zip", published("data/"))
    with pytest.raises(FeatureError, match=r"would both be written as 's0-d5'") as raised:
        convert(path, tmp_path / "out.hdf5")
    assert "ARCHIVE::FOLDER" in str(raised.value.hint)
    with pytest.raises(FeatureError, match=r"no \.npy or \.npz files in a folder 'clip_feature'") as raised:
        convert(f"{path}::clip_feature", tmp_path / "out.hdf5")
    assert "data/clip_features, data/slowfast_features" in str(raised.value.hint)
    assert next(entries(Archive(path))).load().open().read(2) == b"PK"
    assert str(next(entries(Archive(path))).load()) == f"{path}::data/clip_features/s0-d5.npz"
    with pytest.raises(FeatureError, match="is not an archive"):
        (tmp_path / "a.npy").touch()
        find_sources(f"{tmp_path}/a.npy::x")
    with pytest.raises(FeatureError, match="File name too long"):
        find_sources(f"{'x' * 300}.zip::x")
    with pytest.raises(FeatureError, match="cannot be a folder"):
        find_sources(f"{path}::../x")
    with pytest.raises(FeatureError, match=r"has no \.npy or \.npz files in it"):
        convert(pack(tmp_path / "empty.tar", {"a.txt": b""}), tmp_path / "out.hdf5")
    with pytest.raises(OutputError, match="one of the files this command reads"):
        npy_to_hdf5([find_sources(path)], path, overwrite=True)
    (tmp_path / "list.txt").write_text(f"{path}::clip_features\n")
    assert find_sources(tmp_path / "list.txt") == [Archive(path, "clip_features")]
    assert find_sources(f"{tmp_path}/*.zip::data/clip_features") == [Archive(path, "data/clip_features")]
    assert not (tmp_path / "out.hdf5").exists()
    assert Archive(path, "a/b").holds(("x", "a", "b", "c"))
    assert not Archive(path, "a/b").holds(("a", "x", "b"))


HOSTILE = {
    "link.npy": ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "it is a link to '/etc/passwd'"),
    "hard.npy": ({"type": tarfile.LNKTYPE, "linkname": "good.npz"}, "it is a link to 'good.npz'"),
    "device.npy": ({"type": tarfile.CHRTYPE}, "it is not a regular file"),
    "pipe.npy": ({"type": tarfile.FIFOTYPE}, "it is not a regular file"),
    "/absolute.npy": ({}, "its path leads outside the archive"),
    "a/../../up.npy": ({}, "its path leads outside the archive"),
}


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_hostile_members_are_reported_and_not_extracted(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "in" / f"f{ending}"
    path.parent.mkdir()
    with tarfile.open(path, "w" if ending == ".tar" else "w:gz") as tar:
        for name, (about, _) in HOSTILE.items():
            tar.addfile(tar_info(name, **about))
        content = npz(3)
        tar.addfile(tar_info("good.npz", content), io.BytesIO(content))
    report = convert(path, tmp_path / "in" / "out.hdf5")
    assert report.videos == 1
    reasons = dict(report.bad)
    assert {where.partition("::")[2] for where in reasons} == set(HOSTILE)
    for name, (_, wanted) in HOSTILE.items():
        assert wanted in reasons[f"{path}::{name}"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["in", path.name, "out.hdf5"])


def test_hostile_zip_members_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "f.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        link = zipfile.ZipInfo("link.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../up.npy", b"x")
        archive.writestr("bomb.npy", bytes(32 * 2**20))
        archive.writestr("damaged.npz", npz(3))
        archive.writestr("good.npz", npz(3))
    content = bytearray(path.read_bytes())
    at = content.index(b"damaged.npz") + 200
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    report = convert(path, tmp_path / "out.hdf5")
    assert report.videos == 1
    reasons = {where.partition("::")[2]: reason for where, reason in report.bad}
    assert reasons["link.npy"] == "it is a link, which is not followed"
    assert reasons["../up.npy"] == "its path leads outside the archive"
    assert "200 times" in reasons["bomb.npy"]
    assert "cannot be read" in reasons["damaged.npz"]


def test_a_decompression_bomb_in_an_npz_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, features=np.zeros((8 * 2**20, 1), np.float32))
    path = pack(tmp_path / "f.tar", {"bomb.npz": file.getvalue(), "good.npz": npz(3)})
    report = convert(path, tmp_path / "out.hdf5")
    assert [(where.partition("::")[2], reason[:27]) for where, reason in report.bad] == [
        ("bomb.npz", "it grows more than 200 time")
    ]


def huge(path: Path, **about: object) -> Path:
    """Write a .tar.gz whose second member claims 2 TB in its header, and has no content."""
    with gzip.open(path, "wb") as file:
        content = npz(3)
        good = tar_info("good.npz", content)
        file.write(good.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
        info = tar_info("huge.npy", **about)
        info.size = 2 * 10**12
        file.write(info.tobuf(tarfile.GNU_FORMAT))
    return path


def test_claimed_sizes_allocate_no_memory(tmp_path: Path) -> None:
    report = convert(huge(tmp_path / "f.tar.gz"), tmp_path / "a.hdf5")
    assert report.videos == 1
    assert "claims 2,000,000,000,000 bytes" in report.bad[0][1]
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):  # headers that tarfile would read whole
        report = convert(huge(tmp_path / "f.tar.gz", type=kind), tmp_path / f"{kind!r}.hdf5")
        assert report.videos == 1
        assert "header of a member claims" in report.bad[0][1]
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(tar_info("a.txt", bytes(64 * 2**20)).tobuf() + bytes(64 * 2**20))
    with pytest.raises(FeatureError, match="grows more than 200 times"):
        convert(tmp_path / "bomb.tar.gz", tmp_path / "b.hdf5")


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.7])
def test_members_before_a_truncation_are_kept(tmp_path: Path, ending: str, share: float) -> None:
    path = pack(tmp_path / f"f{ending}", {f"{vid}.npz": npz(400, seed) for seed, vid in enumerate(VIDEOS)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    out = tmp_path / "out.hdf5"
    if share == 0.05:
        with pytest.raises(FeatureError, match="cut short"):
            convert(path, out)
        return
    report = convert(path, out)
    assert 0 < report.videos < 12
    assert len(report.bad) == 1
    assert "cut short" in report.bad[0][1]
    path.write_bytes(whole)
    again = npy_to_hdf5([find_sources(path)], out, resume=True)
    assert (again.videos + again.skipped, again.bad) == (12, [])


def test_a_tar_truncated_between_members_is_reported(tmp_path: Path) -> None:
    path = pack(tmp_path / "f.tar", {"a.npz": npz(3), "b.npz": npz(3)})
    at = path.read_bytes().index(b"b.npz")
    path.write_bytes(path.read_bytes()[:at])
    report = convert(path, tmp_path / "out.hdf5")
    assert report.videos == 1
    assert "its end marker is missing" in report.bad[0][1]


def test_a_changed_byte_is_detected_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "f.tar.gz"
    with gzip.open(path, "wb", compresslevel=0) as file, tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tar_info("a.npz", npz(3)), io.BytesIO(npz(3)))
    content = bytearray(path.read_bytes())
    content[-9] ^= 1  # in the padding; the check sum and the length are the last 8 bytes
    path.write_bytes(content)
    assert "incorrect data check" in convert(path, tmp_path / "out.hdf5").bad[0][1]


def test_gzip_files_with_padding_and_several_streams_are_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "f.tar", published())
    content = path.read_bytes()
    packed = tmp_path / "f.tar.gz"
    packed.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    with packed.open("ab") as file:  # as tapes and some downloads leave it; nobody looks through it
        file.truncate(2**40)
    assert convert(f"{packed}::clip_features", tmp_path / "out.hdf5").videos == 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an archive"),
        (b"not an archive at all" * 100, "not an archive"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04 but no more", "not an archive"),
        (b"\x1f\x8b\x08\x00", "cut short"),
    ],
)
def test_files_that_are_not_archives_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "f.tar.gz").write_bytes(content)
    with pytest.raises(FeatureError, match=message):
        convert(tmp_path / "f.tar.gz", tmp_path / "out.hdf5")
    assert not (tmp_path / "out.hdf5").exists()


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 5)
    path = pack(tmp_path / "f.tar", published())
    with pytest.raises(FeatureError, match="more than 5 files"):
        list(entries(Archive(path)))
