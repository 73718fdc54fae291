"""The process that drives a cluster, with a stand-in for Ray."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mesm_core.errors import DataError, DeviceError
from mesm_core.extraction.cluster import ray_cluster
from mesm_core.extraction.cluster.__main__ import extract, find, main
from mesm_core.extraction.cluster.node import NodeWorker
from mesm_core.extraction.cluster.ray_cluster import Connection, RayCluster, places_of
from mesm_core.extraction.pipeline import Failed
from mesm_core.extraction.processes import Share
from mesm_core.extraction.sources import find_videos
from mesm_core.extraction.work import Done
from mesm_core.version import __version__
from tests.extraction.cluster.fake_ray import ActorDiedError, FakeRay, OutOfMemoryError, install
from tests.extraction.made import SETTINGS, make_videos


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRay:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_cluster, "SETTLE_SECONDS", 0)
    return install(monkeypatch)


@pytest.fixture
def connection(ray: FakeRay) -> Iterator[Connection]:
    with closing(Connection("local")) as connection:
        yield connection


@pytest.fixture
def share(tmp_path: Path) -> Share:
    videos = find_videos([make_videos(tmp_path / "videos", 3, frames=30)])
    made = Share(videos, {"pixels": None}, "cpu", SETTINGS, tmp_path / "parts", {}, 4, 2, ray="local")
    made.folder.mkdir()
    return replace(made, hashes=NodeWorker().open(__version__, made.as_json(), 1))


def test_all_videos_are_extracted_and_stored_and_lost_workers_replaced(
    ray: FakeRay, connection: Connection, share: Share
) -> None:
    ray.failures["extract"] = [ActorDiedError("It died.\nIts node died."), OutOfMemoryError("")]
    events = list(extract(share, connection))
    done = [event for event in events if isinstance(event, Done)]
    assert sorted(event.video.name for event in done) == ["v0000", "v0001", "v0002"]
    assert all(event.rows == {"pixels": 2} for event in done)
    assert len(list(share.folder.glob("*.npz"))) == 3
    assert (len(ray.actors), ray.killed) == (2, 1)  # both videos of the first worker failed
    assert ray.actors[0].options["scheduling_strategy"] == ("n1", False)
    assert (ray.actors[0].options["num_cpus"], ray.actors[0].options["max_concurrency"]) == (2, 2)
    again = list(extract(share, connection))
    assert [event.rows for event in again if isinstance(event, Done)] == [{}, {}, {}]


def test_errors_of_a_worker_are_those_of_the_video_and_other_exceptions_are_faults(
    ray: FakeRay, connection: Connection, share: Share
) -> None:
    ray.failures["content"] = [DataError("it is gone")]
    failed = [event for event in extract(share, connection) if isinstance(event, Failed)]
    assert [event.reason for event in failed] == [
        "Node one: it is gone\nEvery node must have the file at the same path."
    ]
    ray.failures["content"] = [ZeroDivisionError("a fault")]
    with pytest.raises(Exception, match="a fault"):
        list(extract(replace(share, folder=share.folder.parent), connection))


def test_workers_of_a_node_that_is_gone_are_lost_and_a_silent_head_ends_the_extraction(
    connection: Connection, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = RayCluster(connection, share)
    number = cluster.start(cluster.places()[0])
    cluster._nodes = []
    assert [answer.value for answer in cluster.answers(0) if answer.worker == number][-1] == ray_cluster.Lost(
        "its node is gone"
    )
    cluster.stop(number)
    assert cluster.answers(0) == []
    monkeypatch.setattr(ray_cluster, "SILENCE_SECONDS", -1)
    with pytest.raises(DeviceError, match="does not answer any more"):
        cluster.places()


def test_the_extraction_ends_when_the_connection_is_closed(connection: Connection, share: Share) -> None:
    events = extract(share, connection)
    next(events)
    connection.close()
    with pytest.raises(ConnectionError, match="is closed"):
        list(events)


def test_a_cluster_of_this_machine_has_a_token_and_leaves_no_files(ray: FakeRay, tmp_path: Path) -> None:
    connection = Connection("local")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert ray.inits[0]["include_dashboard"] is False
    assert Path(ray.inits[0]["_temp_dir"]).is_dir()
    connection.close()
    connection.close()
    assert ray.shutdowns == 1
    assert not list(tmp_path.glob("mesm-ray-*"))
    ray.init_error = RuntimeError("Version mismatch:\nthe cluster has Ray 1.0")
    with pytest.raises(DeviceError, match=r"--ray local: the cluster has Ray 1\.0"):
        Connection("local")
    assert not list(tmp_path.glob("mesm-ray-*"))


def test_a_cluster_is_found_or_one_of_this_machine_is_proposed(ray: FakeRay) -> None:
    assert find("auto") == {"address": "node1:6379", "cores": 2, "gpus": 0}
    assert find("ray://node1:10001")["address"] == "ray://node1:10001"
    target = io.StringIO()
    main(io.StringIO('"node1:6379"\n'), target)
    assert json.loads(target.getvalue())["cores"] == 2
    ray.init_error = ConnectionError("Could not find any running Ray instance.")
    assert find("auto")["address"] == "local"
    target = io.StringIO()
    main(io.StringIO('"node1:6379"\n'), target)
    assert json.loads(target.getvalue())["error"] == "DeviceError"


def test_places_are_gpus_or_groups_of_at_most_four_cores() -> None:
    def places(gpus: bool, **resources: float) -> list[int]:
        node = {"NodeID": "n", "NodeManagerHostname": "h", "Resources": resources}
        return [place.cores for place in places_of(node, gpus=gpus, decoders=2)]

    assert places(False, CPU=1) == [1]
    assert places(False, CPU=6, GPU=1) == [3, 3]
    assert places(False, CPU=9) == [3, 3, 3]
    assert places(False) == []
    assert places(True, CPU=16, GPU=2) == [3, 3]
    assert places(True, CPU=2, GPU=2) == [1, 1]
    assert places(True, GPU=1) == [0]
    assert places(True, CPU=16) == []


def test_features_that_are_stored_are_not_extracted_again(ray: FakeRay, connection: Connection, share: Share) -> None:
    list(extract(share, connection))
    ray.calls.clear()
    list(extract(share, connection))
    assert [name for name, _ in ray.calls] == ["open", "content", "content", "content"]
