"""Where outputs go: beside their place and renamed, through links, to devices as they are, never over an input."""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mesm_core.data.convert import npy_to_hdf5
from mesm_core.errors import FeatureError, OutputError
from mesm_core.files import (
    append_line,
    discard_draft,
    library_output,
    replacing,
    text_output,
    together,
    write_atomically,
    write_links,
)
from mesm_core.places import is_stream, need_room, refuse_existing, refuse_inputs
from tests.limits import files_of_at_most


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "file", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("far/file")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling"
    dangling.symlink_to("far/other")
    write_atomically(dangling, b"more", overwrite=False)
    assert (tmp_path / "far" / "other").read_bytes() == b"more"
    with pytest.raises(OutputError, match="already exists"):
        write_atomically(dangling, b"again", overwrite=False)
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(OutputError, match="loop could not be written: Too many levels"):
        write_atomically(loop, b"x")
    assert names(tmp_path) == ["dangling", "far", "file", "link", "loop", "other"]


def test_a_pipe_gets_what_is_written_as_it_is_written(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for way in ("whole", "lines", "library"):
        got: list[bytes] = []

        def read(got: list[bytes] = got) -> None:
            got.append(pipe.read_bytes())

        reader = threading.Thread(target=read)
        reader.start()
        if way == "whole":
            write_atomically(pipe, b"a line\n", overwrite=False)
        elif way == "lines":
            with text_output(pipe, overwrite=False) as file:
                file.write("a line\n")
        else:
            with library_output(pipe, overwrite=False) as output:
                output.write(b"a line\n")
        reader.join()
        assert got == [b"a line\n"], way
    assert names(tmp_path) == ["pipe"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_lines_reach_a_pipe_before_the_output_ends(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with text_output(pipe) as file:
            file.write("first\n")
            assert os.read(reading, 100) == b"first\n"
    finally:
        os.close(reading)


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError:
        pytest.skip("devices cannot be made here")
    link = tmp_path / "link"
    link.symlink_to(device)
    for path in (device, link):
        for overwrite in (False, True):
            write_atomically(path, b"x", overwrite=overwrite)
            with replacing(path, overwrite=overwrite) as temporary:
                temporary.write_bytes(b"x")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert stat.S_IMODE(device.stat().st_mode) == 0o600
    assert names(tmp_path) == ["link", "null"]
    with pytest.raises(OutputError, match="HDF5 needs a file"):
        npy_to_hdf5([[tmp_path / "a.npy"]], device, overwrite=True)


def test_an_open_file_is_written_to_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        file.write("before\n")
        file.flush()
        number = Path(f"/dev/fd/{file.fileno()}")
        assert is_stream(number)
        write_atomically(number, b"output\n", overwrite=False)
        file.write("after\n")
    assert path.read_text() == "before\noutput\nafter\n"


def test_a_closed_pipe_is_no_full_disk(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(BrokenPipeError):
            write_atomically(Path(f"/dev/fd/{writing}"), b"x")
    finally:
        os.close(writing)


def test_an_output_that_is_an_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a"
    path.write_bytes(b"precious")
    (tmp_path / "soft").symlink_to("a")
    os.link(path, tmp_path / "hard")
    (tmp_path / "sub").mkdir()
    for name in (Path("a"), path, Path("sub/../a"), Path("soft"), Path("hard")):
        with pytest.raises(OutputError, match="one of the files this command reads"):
            refuse_inputs([None, name], [None, path])
    for first, second in (("new", "./new"), ("soft", "hard"), ("new", "sub/../new")):
        with pytest.raises(OutputError, match="would be the same file"):
            refuse_inputs([Path(first), Path(second)], [])
    refuse_inputs([Path("new"), Path("/dev/null"), Path("/dev/null")], [path, Path("/dev/null"), tmp_path])


def test_files_written_together_are_all_there_or_none(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"old")
    with pytest.raises(OutputError, match="second"), together():
        write_atomically(old, b"new")
        write_atomically(tmp_path / "a" / "b" / "first", b"x")
        with files_of_at_most(10):
            write_atomically(tmp_path / "a" / "second", b"x" * 11)
    assert (old.read_bytes(), names(tmp_path)) == (b"old", ["old"])
    with together():
        write_atomically(old, b"new")
        write_atomically(tmp_path / "a" / "first", b"x")
        assert old.read_bytes() == b"old"
    assert (old.read_bytes(), names(tmp_path)) == (b"new", ["a", "first", "old"])


@pytest.mark.parametrize("room", [0, 100, 5000, 20000])
def test_what_a_library_cannot_write(tmp_path: Path, room: int) -> None:
    def by_torch(path: Path) -> None:
        with library_output(path) as file:
            torch.save({"x": torch.zeros(9000)}, file)

    def by_numpy(path: Path) -> None:
        with library_output(path) as file:
            np.save(file, np.zeros(9000))

    def by_hdf5(path: Path) -> None:
        with library_output(path) as target, h5py.File(target, "w") as file:
            for number in range(40):
                file[f"v{number}"] = np.zeros(300)

    for write in (by_torch, by_numpy, by_hdf5):
        with files_of_at_most(room), pytest.raises(OutputError, match=r"deep/out could not .*it needs .* free in "):
            write(tmp_path / "deep" / "out")
        assert names(tmp_path) == []


@pytest.mark.parametrize("room", [0, 3000, 40_000, 150_000, 160_000])
def test_a_conversion_without_room_ends_in_order(tmp_path: Path, room: int) -> None:
    arrays = [np.random.default_rng(n).normal(size=(20, 64 if n < 30 else 63)).astype(np.float32) for n in range(40)]
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"v{number}.npy", array.astype(np.float64) if number % 2 else array)
    sources, before = [sorted(tmp_path.glob("*.npy"))], names(tmp_path)
    out = tmp_path / "new" / "out.hdf5"
    with files_of_at_most(room), pytest.raises(OutputError, match=r"out\.hdf5 could not be written") as told:
        npy_to_hdf5(sources, out)
    assert "it needs" in told.value.message
    assert names(tmp_path) == before


def test_a_finished_file_is_given_back_when_nothing_can_be_added(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((20, 64), np.float32))
    np.save(tmp_path / "b.npy", np.ones((2000, 64), np.float32))
    np.save(tmp_path / "bad.npy", np.full((2, 64), np.nan))
    out = tmp_path / "out.hdf5"
    npy_to_hdf5([[tmp_path / "a.npy"]], out)
    with files_of_at_most(20_000), pytest.raises(OutputError):
        npy_to_hdf5([[tmp_path / "b.npy"]], out, resume=True)
    with pytest.raises(FeatureError, match="None of the 1 videos"):
        npy_to_hdf5([[tmp_path / "bad.npy"]], out, resume=True)
    assert not out.with_name("out.hdf5.part").exists()
    with h5py.File(out) as file:
        assert np.array_equal(file["a"][()], np.ones((20, 64)))


def test_a_conversion_follows_its_links_and_refuses_its_sources(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((2, 3), np.float32))
    content = path.read_bytes()
    os.link(path, tmp_path / "b.hdf5")
    for out in (path, tmp_path / "b.hdf5"):
        with pytest.raises(OutputError, match="one of the files this command reads"):
            npy_to_hdf5([[path]], out, overwrite=True)
    assert path.read_bytes() == content
    (tmp_path / "far").mkdir()
    (tmp_path / "link.hdf5").symlink_to("far/out.hdf5")
    npy_to_hdf5([[path]], tmp_path / "link.hdf5")
    assert (tmp_path / "link.hdf5").is_symlink()
    assert h5py.is_hdf5(tmp_path / "far" / "out.hdf5")


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "first")
    with files_of_at_most(10), pytest.raises(OutputError, match="lines could not be written"):
        append_line(path, "a second that is longer")
    assert path.read_text() == "first\n"


def test_links_are_made_together(tmp_path: Path) -> None:
    (tmp_path / "to").write_text("x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken could not be written"):
        write_links({tmp_path / "taken": tmp_path / "to"})
    write_links({tmp_path / "new" / "link": tmp_path / "to"})
    assert (tmp_path / "new" / "link").readlink() == Path("../to")
    assert names(tmp_path) == ["link", "new", "taken", "to"]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "below", tmp_path / "file" / "a" / "b", tmp_path / ("n" * 300), Path("/proc/x/y")):
        with pytest.raises(OutputError) as told:
            write_atomically(path, b"x")
        assert str(path) in told.value.message
    assert names(tmp_path) == ["file"]
    write_atomically(tmp_path / ("n" * 250), b"x")
    with pytest.raises(OutputError, match="is a folder"):
        refuse_existing(tmp_path, overwrite=True)


def test_room_is_asked_for_before_work_begins(tmp_path: Path) -> None:
    need_room(tmp_path / "a" / "b", 1)
    with pytest.raises(OutputError, match=r"b needs about 1\d+\.\d TB, but only .* are free in"):
        need_room(tmp_path / "a" / "b", 10**14 * 10)
    assert errno.ENOSPC


def test_what_a_killed_process_left_is_used_again(tmp_path: Path) -> None:
    target = tmp_path / "features.hdf5"
    child = os.fork()
    if child == 0:
        with replacing(target) as draft:
            draft.write_bytes(b"half of it, and longer than the whole")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(names(tmp_path)) == 1, "the killed process was at work"
    write_atomically(target, b"whole")
    assert names(tmp_path) == ["features.hdf5"]
    assert target.read_bytes() == b"whole"


def test_two_writers_of_one_output_do_not_share_a_draft(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with replacing(target) as first:
        first.write_bytes(b"first")
        write_atomically(target, b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_a_draft_is_never_a_planted_file(tmp_path: Path) -> None:
    target, other = tmp_path / "file", tmp_path / "other"
    other.write_bytes(b"kept")
    (tmp_path / ".file.part").symlink_to(other)
    write_atomically(target, b"new")
    (tmp_path / ".file.part").unlink()
    os.link(other, tmp_path / ".file.part")
    write_atomically(target, b"newer")
    assert other.read_bytes() == b"kept"
    assert target.read_bytes() == b"newer"


def test_the_draft_of_a_killed_process_is_discarded_but_not_one_in_use(tmp_path: Path) -> None:
    left = tmp_path / ".out.mp4.part"
    left.write_bytes(b"half")
    discard_draft(tmp_path / "out.mp4")
    assert not left.exists()
    discard_draft(tmp_path / "out.mp4")
    with replacing(tmp_path / "out.mp4") as temporary:
        discard_draft(tmp_path / "out.mp4")
        assert temporary.exists()
        temporary.write_bytes(b"whole")
    assert (tmp_path / "out.mp4").read_bytes() == b"whole"
