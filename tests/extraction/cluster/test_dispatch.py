"""Videos of lost workers go to others; nothing finished is extracted again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesm_core.errors import DeviceError, FeatureError
from mesm_core.extraction.cluster.dispatch import Lost, Value
from mesm_core.extraction.pipeline import Failed, Frames
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.work import Done, Event
from tests.extraction.cluster.fake import FakeCluster, dispatched, unreadable, video

VIDEOS = [video(number) for number in range(8)]


def names(events: Sequence[Event], kind: type) -> list[str]:
    return [event.video.name for event in events if isinstance(event, kind) and not isinstance(event, Frames)]


def test_every_video_is_extracted_once_by_all_workers() -> None:
    cluster = FakeCluster("a", "b")
    events = dispatched(cluster, VIDEOS)
    assert sorted(names(events, Done)) == [each.name for each in VIDEOS]
    assert Counter(name for _, name in cluster.seen) == Counter(each.name for each in VIDEOS)
    assert {host for host, _ in cluster.seen} == {"a", "b"}
    assert sum(event.count for event in events if isinstance(event, Frames)) == 8 * 75


def test_videos_whose_features_exist_are_not_extracted() -> None:
    cluster = FakeCluster("a")
    events = dispatched(cluster, VIDEOS, known=["v1", "v6"])
    assert [event.video.name for event in events if isinstance(event, Done) and not event.rows] == ["v1", "v6"]
    assert {"v1", "v6"}.isdisjoint(name for _, name in cluster.seen)


def test_videos_of_a_lost_node_are_extracted_by_another_and_finished_ones_are_not_repeated() -> None:
    cluster = FakeCluster("a", "b")
    done: list[str] = []

    def lose(host: str, video: VideoFile) -> Value | None:
        done.append(video.name)
        return Lost("its node is gone") if host == "b" and len(done) >= 4 else None

    cluster.on_extract = lose
    events = dispatched(cluster, VIDEOS)
    assert sorted(names(events, Done)) == [each.name for each in VIDEOS]
    assert not names(events, Failed)
    again = [name for name, times in Counter(name for _, name in cluster.seen).items() if times > 1]
    assert 1 <= len(again) <= 2  # those that the lost worker had
    assert cluster.started == ["a", "b"]


def test_a_video_that_ends_every_worker_fails_alone_after_three_workers() -> None:
    cluster = FakeCluster("a")
    cluster.on_extract = lambda host, video: Lost("it stays dead") if video.name == "v3" else None
    events = dispatched(cluster, VIDEOS)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.video.name == "v3"
    assert failed.content == "hash of v3"
    assert "its worker was lost 3 times, last on a: it stays dead" in failed.reason
    assert len(names(events, Done)) == 7
    assert cluster.started == ["a"] * 3


def test_an_unreadable_video_is_reported_with_the_node_and_the_others_are_extracted(tmp_path: Path) -> None:
    here = tmp_path / "here.mp4"
    here.write_bytes(b"video")
    cluster = FakeCluster("a")
    usual = cluster.on_content
    bad = VideoFile("bad", here)
    cluster.on_content = lambda host, video: (unreadable if video == bad or video.name == "v2" else usual)(host, video)
    events = dispatched(cluster, [*VIDEOS[:3], bad])
    reasons = {event.video.name: event.reason for event in events if isinstance(event, Failed)}
    assert reasons == {
        "v2": "/videos/v2.mp4 is missing.",
        "bad": f"Node a: {here} is missing.\nEvery node must have the file at the same path.",
    }
    assert len(names(events, Done)) == 2


def test_a_new_node_gets_a_worker() -> None:
    cluster = FakeCluster("a")

    def join(host: str, video: VideoFile) -> None:
        cluster.hosts = ["a", "late"]

    cluster.on_extract = join
    dispatched(cluster, VIDEOS)
    assert "late" in {host for host, _ in cluster.seen}


def test_the_extraction_ends_if_no_node_is_left_and_says_how_far_it_came() -> None:
    cluster = FakeCluster("a")
    cluster.on_extract = lambda host, video: Lost("its node is gone") if len(cluster.seen) == 3 else None
    with pytest.raises(DeviceError, match=r"No node .* is left.* on a: its node is gone\. 2 of 8 videos are done"):
        dispatched(cluster, VIDEOS)


def test_a_place_is_given_up_after_three_failed_starts() -> None:
    cluster = FakeCluster("a")
    cluster.opens["a"] = Lost("ModuleNotFoundError: No module named 'mesm_core'")
    with pytest.raises(DeviceError, match=r"No worker can start .* No module named 'mesm_core'"):
        dispatched(cluster, VIDEOS)
    assert cluster.started == ["a"] * 3


def test_a_cluster_without_room_is_not_waited_for_for_ever() -> None:
    cluster = FakeCluster("a")
    cluster.start = lambda place: 0  # type: ignore[method-assign]  # it never becomes ready
    with pytest.raises(DeviceError, match="other programs may use all of its processors"):
        dispatched(cluster, VIDEOS)


def test_workers_with_other_weights_or_without_them_are_refused() -> None:
    cluster = FakeCluster("a")
    cluster.opens["a"] = {"pixels": "others"}
    with pytest.raises(FeatureError, match="Node a has other weights"):
        dispatched(cluster, VIDEOS)
    cluster.opens["a"] = FeatureError("w.pt is missing.", hint="Give it.")
    with pytest.raises(FeatureError, match=r"Node a: w\.pt is missing") as raised:
        dispatched(cluster, VIDEOS)
    assert raised.value.hint == "Give it."
