"""Extraction on a Ray cluster: real, where it is installed; refusals that need no cluster."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mesm_core.errors import ConfigError, DeviceError
from mesm_core.extraction import processes
from mesm_core.extraction.cluster import finding
from mesm_core.extraction.cluster.finding import checked_address, find_cluster
from mesm_core.extraction.cluster.node import NodeWorker
from mesm_core.extraction.job import Extraction
from mesm_core.extraction.pipeline import Extracted, Failed
from mesm_core.extraction.processes import Share
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.setup import Options
from mesm_core.extraction.sources import VideoFile, content_hash, find_videos
from mesm_core.extraction.work import Done
from mesm_core.search import Index
from mesm_core.search.building import IndexBuild
from mesm_core.search.choices import Choices
from mesm_core.version import __version__
from tests.extraction.made import SETTINGS, content, make_videos, run, same
from tests.tiny_clip import write_clip
from tests.video.made import aged

ROOT = Path(__file__).resolve().parents[3]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


def share(folder: Path) -> Share:
    return Share([], {"pixels": None}, "cpu", SETTINGS, folder, {}, batch_size=4, decoders=2)


def test_a_worker_hashes_and_extracts_videos_and_reports_unreadable_ones(tmp_path: Path) -> None:
    (path,) = make_videos(tmp_path / "videos", 1, frames=30).iterdir()
    empty = tmp_path / "empty.avi"
    empty.write_bytes(b"")
    worker = NodeWorker()
    assert worker.open(__version__, share(tmp_path).as_json(), 1).keys() == {"pixels"}
    assert worker.content(path) == content_hash(path)
    result, frames = worker.extract(VideoFile("v", path), ["pixels"])
    assert isinstance(result, Extracted)
    assert result.features["pixels"].shape == (2, 256)
    assert frames == 30
    result, _ = worker.extract(VideoFile("e", empty), ["pixels"])
    assert isinstance(result, Failed)
    assert "empty (0 bytes)" in result.reason


def test_a_worker_of_another_version_refuses_to_work(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"mesm is \S+ here and 0\.0\.0 where the command runs"):
        NodeWorker().open("0.0.0", share(tmp_path).as_json(), 1)


@pytest.mark.parametrize("address", ["node1", "node1:0", "node1:99999", "http://node1:6379", "ray://", "", "a b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a Ray cluster"):
        find_cluster(address, "cpu")


def test_the_variable_of_ray_is_used_by_auto_only() -> None:
    assert checked_address("auto", {"RAY_ADDRESS": "ray://[::1]:10001"}) == "ray://[::1]:10001"
    assert checked_address("node1:6379", {"RAY_ADDRESS": "node2:6379"}) == "node1:6379"
    with pytest.raises(ConfigError, match=r"\$RAY_ADDRESS=nowhere is no address"):
        checked_address("auto", {"RAY_ADDRESS": "nowhere"})


def test_a_missing_package_and_a_single_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--ray needs the package ray") as raised:
        find_cluster("auto", "cpu")
    assert raised.value.hint == "pip install 'mesm[ray]'"
    with pytest.raises(DeviceError):
        find_cluster("auto", "cuda:1")


def test_an_address_where_nothing_listens_is_refused_before_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "find_spec", lambda name: object())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(DeviceError, match=r"No Ray cluster answers at 127\.0\.0\.1:\d+: Connection refused"):
            find_cluster(f"127.0.0.1:{unused.getsockname()[1]}", "cpu")


def test_the_device_of_the_workers_is_that_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "find_spec", lambda name: object())
    monkeypatch.setattr(finding, "_knock", lambda address: None)
    cluster = {"address": "n:1", "cores": 4, "gpus": 2}
    monkeypatch.setattr(finding, "_ask", lambda address: cluster)
    assert [find_cluster("n:1", device).device for device in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    cluster["gpus"] = 0
    assert find_cluster("n:1", "auto").device == "cpu"
    with pytest.raises(DeviceError, match="has no GPU"):
        find_cluster("n:1", "cuda")
    cluster["cores"] = 0
    with pytest.raises(DeviceError, match="has no processors"):
        find_cluster("n:1", "auto")


@dataclass
class TwoNodes:
    """A cluster of two nodes on this machine."""

    process: subprocess.Popen[str]
    address: str
    second: str

    def kill_second(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "killed\n"


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="mesm-ray-test-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "tests.extraction.cluster.two_nodes", folder]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        with process:
            assert process.stdout is not None
            yield TwoNodes(process, *process.stdout.readline().split())


@needs_ray
@pytest.mark.slow
def test_a_killed_node_loses_no_finished_video(
    two_nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    asked.touch()
    monkeypatch.setenv("ASKED", str(asked))
    monkeypatch.setattr(processes, "RAY_DRIVER", "tests.extraction.cluster.counting")
    videos, settings = make_videos(tmp_path / "videos", 12, frames=600), Settings(Fraction(1, 25))
    (videos / "v0003.avi").write_bytes(b"no video")
    options = Options(ray=two_nodes.address, decoders=1)
    job = Extraction(find_videos([videos]), tmp_path / "out", ["pixels"], settings=settings, options=options)
    done: list[str] = []
    finished_before: list[str] = []
    for event in job.run():
        done += [event.video.name] if isinstance(event, Done) else []
        by_second = [line for line in asked.read_text().splitlines() if line.startswith(two_nodes.second)]
        if not finished_before and len(by_second) >= 2 and len(done) >= 2:
            finished_before = list(done)
            two_nodes.kill_second()
    assert finished_before
    times = Counter(line.split()[1] for line in asked.read_text().splitlines())
    assert all(times[name] == 1 for name in finished_before)
    assert [name for name, number in times.items() if number > 1] == [by_second[-1].split()[1]]
    assert Counter(done) == Counter(f"v{number:04d}" for number in range(12) if number != 3)
    assert [video.name for video, _ in job.report.bad] == ["v0003"]
    run(videos, tmp_path / "whole", settings=settings)
    assert same(content(tmp_path / "out" / "pixels.hdf5"), content(tmp_path / "whole" / "pixels.hdf5"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pixels.hdf5"]


@needs_ray
@pytest.mark.slow
def test_an_index_is_built_on_a_cluster_that_loses_a_node(two_nodes: TwoNodes, tmp_path: Path) -> None:
    videos, weights = make_videos(tmp_path / "videos", 8, frames=200), aged(write_clip(tmp_path / "w.pt"))
    choices = Choices(clip_len=Fraction(1, 25), seconds=0.5)

    def build(name: str, options: Options, *, kill: bool = False) -> Index:
        job = IndexBuild(
            tmp_path / name, [str(videos)], new=True, choices=choices, weights={"clip-b32": weights}, options=options
        )
        for event in job.run():
            if kill and isinstance(event, Done):
                two_nodes.kill_second()
                kill = False
        assert not kill
        assert not job.report.bad
        return Index.open(tmp_path / name)

    ours = build("ours", Options(ray=two_nodes.address, decoders=1), kill=True)
    plain = build("plain", Options(device="cpu"))
    assert {video.name for video in ours.videos.values()} == {f"v{number:04d}" for number in range(8)}
    for id_ in plain.videos:
        assert np.allclose(ours.features(id_)[0], plain.features(id_)[0], atol=1e-3)


@needs_ray
@pytest.mark.slow
def test_a_signal_ends_a_cluster_that_the_command_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = Path(tempfile.mkdtemp(prefix="mesm-ray-test-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    videos, out = make_videos(tmp_path / "videos", 6, frames=600), tmp_path / "out"
    words = ["extract", str(videos), str(out), "--backbone", "pixels", "--clip-len", "1/25", "--ray", "auto"]
    # Signals are ignored in processes that a shell started in the background.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from mesm_cli.entry import main; main()"
    with subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(out.glob("*.parts/*.npz")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Continue with --resume" in errors
    assert "Traceback" not in errors
    assert list(out.glob("*.parts/*.npz"))
    assert list(folder.iterdir()) == []
    folder.rmdir()
