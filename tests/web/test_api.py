"""The API over HTTP, with known answers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from mesm_core.web.collection import AwayError, Found
from tests.video.made import film
from tests.web.made import KnownCollection, served

QUERY = "a person opens the door"


def only(client: httpx.Client) -> str:
    """Return the id of the only video."""
    (video,) = client.get("/api/videos").json()["videos"]
    return str(video["id"])


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of a job, and return its status."""
    while job["state"] in ("waiting", "running"):
        time.sleep(0.02)
        job = client.get(f"/api/jobs/{job['id']}").json()
    return job


def test_the_videos_are_listed_with_names_and_without_paths(client: httpx.Client, clip: Path) -> None:
    found = client.get("/api/videos")
    assert found.status_code == 200
    assert str(clip.parent) not in found.text
    assert found.json()["videos"] == [{"id": only(client), "name": "kitchen.mp4", "prepared": True}]
    assert (found.json()["total"], found.json()["calibrated"], found.json()["max_upload"]) == (1, True, None)
    details = client.get(f"/api/videos/{only(client)}").json()
    assert (details["media_type"], details["width"], details["duration"]) == (
        "video/mp4",
        64,
        pytest.approx(8, abs=0.2),
    )


def test_a_query_about_a_video_gives_moments_and_saliency(client: httpx.Client) -> None:
    found = client.post("/api/locate", json={"video": only(client), "query": QUERY, "top": 1}).json()
    assert found["moments"] == [{"start": 2.0, "end": 5.0, "score": 0.9, "confidence": 0.8}]
    assert (len(found["saliency"]), found["seen"], found["duration"], found["confidence"]) == (8, 8.0, 8.0, 0.9)


def test_a_search_gives_moments_of_all_videos_by_confidence(tmp_path: Path) -> None:
    with served(KnownCollection(tmp_path / "a.mp4", tmp_path / "b.mp4"), tmp_path) as client:
        found = client.post("/api/search", json={"query": QUERY, "top": 3}).json()
    assert [(hit["name"], hit["confidence"]) for hit in found["results"]] == [
        ("a.mp4", 0.8),
        ("b.mp4", 0.8),
        ("a.mp4", 0.3),
    ]
    assert (found["searched"], found["unprepared"]) == (2, 0)


def test_a_video_that_is_removed_during_a_search_is_left_out(tmp_path: Path) -> None:
    class Shrinking(KnownCollection):
        def search(self, query: str, *, top: int) -> Found:
            found = super().search(query, top=top)
            self._videos = dict(list(self._videos.items())[1:])
            return found

    with served(Shrinking(tmp_path / "a.mp4", tmp_path / "b.mp4"), tmp_path) as client:
        found = client.post("/api/search", json={"query": QUERY}).json()
    assert {hit["name"] for hit in found["results"]} == {"b.mp4"}
    assert (found["searched"], found["unprepared"]) == (2, 0)


def test_the_first_question_to_a_video_starts_a_job_that_prepares_it(tmp_path: Path) -> None:
    collection = KnownCollection(tmp_path / "a.mp4", prepared=False)
    with served(collection, tmp_path) as client:
        asked = {"video": only(client), "query": QUERY}
        collection.released.clear()
        first, second = (client.post("/api/locate", json=asked) for _ in range(2))
        assert first.status_code == second.status_code == 202
        assert first.json()["id"] == second.json()["id"]
        assert client.post("/api/search", json={"query": QUERY}).json()["unprepared"] == 1
        collection.released.set()
        assert ended(client, first.json())["state"] == "done"
        assert client.post("/api/locate", json=asked).status_code == 200


def test_a_job_can_be_cancelled_and_another_one_is_started_then(tmp_path: Path) -> None:
    collection = KnownCollection(tmp_path / "a.mp4", prepared=False)
    with served(collection, tmp_path) as client:
        collection.released.clear()
        job = client.post("/api/prepare", json={"videos": None}).json()
        assert [listed["id"] for listed in client.get("/api/jobs").json()["jobs"]] == [job["id"]]
        client.delete(f"/api/jobs/{job['id']}")
        assert ended(client, job)["state"] == "cancelled"
        assert client.get("/api/jobs").json()["jobs"] == []
        assert client.post("/api/prepare", json={}).json()["id"] != job["id"]
        collection.released.set()


def test_videos_that_cannot_be_prepared_are_named(tmp_path: Path) -> None:
    collection = KnownCollection(tmp_path / "a.mp4", prepared=False)
    with served(collection, tmp_path) as client:
        collection.reason = {only(client): "a.mp4 is empty."}
        job = ended(client, client.post("/api/prepare", json={}).json())
        assert job["failed"] == [{"video": only(client), "name": "a.mp4", "reason": "a.mp4 is empty."}]


@pytest.mark.parametrize("query", ["", " ", "a" * 501, "\ud800", 3, None])
@pytest.mark.parametrize("path", ["search", "locate"])
def test_invalid_queries_are_refused(client: httpx.Client, path: str, query: object) -> None:
    import json

    body = json.dumps({"query": query} | ({"video": only(client)} if path == "locate" else {}))
    found = client.post(f"/api/{path}", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 422
    assert "query" in found.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"query": "x", "more": 1}', b'{"query": "x", "top": 0}', b'{"query": "x", "top": 1e9}']
)
def test_invalid_bodies_are_refused(client: httpx.Client, body: bytes) -> None:
    found = client.post("/api/search", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 422
    assert isinstance(found.json()["detail"], str)


def test_a_body_that_is_not_json_is_described(client: httpx.Client) -> None:
    found = client.post("/api/search", content=b'{"query": x}', headers={"content-type": "application/json"})
    assert found.json()["detail"] == "The body is not JSON: Expecting value at character 10"


def test_a_book_in_the_body_is_refused(client: httpx.Client) -> None:
    book = b'{"query": "' + b"word " * 20_000 + b'"}'
    headers = {"content-type": "application/json"}
    assert client.post("/api/search", content=book, headers=headers).status_code == 413
    chunked = client.post(
        "/api/search", content=(book[i : i + 4096] for i in range(0, len(book), 4096)), headers=headers
    )
    assert chunked.status_code == 413


def test_unknown_videos_and_jobs_are_not_found(client: httpx.Client) -> None:
    for path in ("/api/videos/none", "/api/videos/none/file", "/api/thumbnail/none", "/api/jobs/none"):
        assert client.get(path).status_code == 404
    assert client.get("/api/clip/none?start=0&end=1").status_code == 404
    assert client.post("/api/locate", json={"video": "none", "query": QUERY}).status_code == 404
    assert client.post("/api/prepare", json={"videos": ["none"]}).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "..%5c..%5cetc",
        "/etc/passwd",
        "%00",
        "a%2Fb",
        "kitchen.mp4",
    ],
)
@pytest.mark.parametrize("where", ["/api/videos/{}", "/api/videos/{}/file", "/api/thumbnail/{}", "/static/{}"])
def test_no_path_of_a_client_reaches_the_disk(client: httpx.Client, where: str, path: str) -> None:
    found = client.get(httpx.URL(str(client.base_url) + where.format(path)))
    assert found.status_code in (404, 422)
    assert "root:" not in found.text


def test_the_file_is_sent_whole_or_in_one_range(client: httpx.Client, clip: Path) -> None:
    path, content = f"/api/videos/{only(client)}/file", clip.read_bytes()
    whole = client.get(path)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, content, "video/mp4")
    assert whole.headers["accept-ranges"] == "bytes"
    for wanted, part in [("bytes=0-9", content[:10]), ("bytes=-7", content[-7:]), ("bytes=100-", content[100:])]:
        found = client.get(path, headers={"range": wanted})
        assert (found.status_code, found.content) == (206, part)
    assert found.headers["content-range"] == f"bytes 100-{len(content) - 1}/{len(content)}"
    tag = whole.headers["etag"]
    assert client.get(path, headers={"range": "bytes=0-1", "if-range": tag}).status_code == 206
    assert client.get(path, headers={"range": "bytes=0-1", "if-range": '"old"'}).status_code == 200


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=99999999-",
        "bytes=5-2",
        "bytes=-0",
        "bytes=a-b",
        "lines=0-1",
        "bytes=-",
        "bytes=" + "9" * 40 + "-",
        "bytes=" + ",".join(f"{i}-{i}" for i in range(1000)),
    ],
)
def test_other_ranges_are_refused(client: httpx.Client, clip: Path, wanted: str) -> None:
    found = client.get(f"/api/videos/{only(client)}/file", headers={"range": wanted})
    assert found.status_code == 416
    assert found.headers["content-range"] == f"bytes */{clip.stat().st_size}"


def test_head_gives_the_headers_of_get_without_a_body(client: httpx.Client, clip: Path) -> None:
    file = f"/api/videos/{only(client)}/file"
    for path in ("/", "/static/style.css", "/api/health", "/api/videos", file, f"{file}x", "/login"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert {**head.headers, "date": ""} == {**got.headers, "date": ""}
    part = client.head(file, headers={"range": "bytes=1-4"})
    assert (part.status_code, part.headers["content-range"]) == (206, f"bytes 1-4/{clip.stat().st_size}")
    assert client.head("/api/search").status_code == 405


def test_a_clip_is_cut_once_and_named_for_downloads(collection: KnownCollection, tmp_path: Path) -> None:
    with served(collection, tmp_path) as client:
        path = f"/api/clip/{only(client)}?start=2&end=4.5"
        with ThreadPoolExecutor(3) as pool:
            found = [job.result() for job in [pool.submit(client.get, path) for _ in range(3)]]
        named = client.get(path + "&download=true").headers["content-disposition"]
    assert {(one.status_code, one.headers["content-type"]) for one in found} == {(200, "video/mp4")}
    assert len(list((tmp_path / "clips").iterdir())) == 1
    (tmp_path / "clip.mp4").write_bytes(found[0].content)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        assert file.duration == pytest.approx(2.5e6, rel=0.1)
    assert named == 'attachment; filename="kitchen_0002.0-0004.5.mp4"'


@pytest.mark.parametrize("times", ["start=4&end=2", "start=1&end=1", "start=0&end=301", "start=nan&end=2", "start=0",
                                   "start=-1&end=2", "start=100&end=101", "start=0&end=inf"])  # fmt: skip
def test_clips_that_do_not_exist_are_refused(client: httpx.Client, times: str) -> None:
    assert client.get(f"/api/clip/{only(client)}?{times}").status_code == 422


def test_a_thumbnail_is_a_small_jpeg_picture(client: httpx.Client) -> None:
    first, last = (client.get(f"/api/thumbnail/{only(client)}?time={time}") for time in (0, 1000))
    for found in (first, last):
        assert (found.status_code, found.headers["content-type"]) == (200, "image/jpeg")
        assert found.content.startswith(b"\xff\xd8")
    assert first.content != last.content


def test_a_file_that_is_no_video_or_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    with served(KnownCollection(tmp_path / "bad.mp4"), tmp_path) as client:
        for path in ("/api/videos/{}", "/api/videos/{}/file", "/api/thumbnail/{}", "/api/clip/{}?start=0&end=1"):
            found = client.get(path.format(only(client)))
            assert found.status_code == 422
            assert "bad.mp4 is not a video" in found.json()["detail"]
            assert str(tmp_path) not in found.text
        (tmp_path / "bad.mp4").unlink()
        gone = client.get(f"/api/thumbnail/{only(client)}")
        assert (gone.status_code, gone.json()["detail"]) == (422, "The file of bad.mp4 is gone.")


def test_videos_that_browsers_cannot_play_have_no_media_type(tmp_path: Path) -> None:
    made = [film(tmp_path / "a.mkv", 2), film(tmp_path / "b.mp4", 2, codec="libx265"),
            film(tmp_path / "c.mp4", 2, pixel_format="yuv420p10le")]  # fmt: skip
    plays = film(tmp_path / "d.webm", 2, codec="libvpx")
    with served(KnownCollection(*made, plays), tmp_path) as client:
        ids = [video["id"] for video in client.get("/api/videos").json()["videos"]]
        found = [client.get(f"/api/videos/{key}").json()["media_type"] for key in ids]
        assert found == [None, None, None, "video/webm"]
        assert client.get(f"/api/clip/{ids[2]}?start=0&end=1").status_code == 200


def test_too_many_queries_at_once_are_told_to_come_back(collection: KnownCollection, tmp_path: Path) -> None:
    gate = threading.Event()
    collection.work = lambda: (gate.wait(), None)[1]
    with served(collection, tmp_path, running=1, waiting=2) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.post, "/api/search", json={"query": QUERY}) for _ in range(8)]
        while sum(job.done() for job in asked) < 5:
            time.sleep(0.01)
        gate.set()
        codes = sorted(job.result().status_code for job in asked)
    assert codes == [200] * 3 + [429] * 5
    assert all("retry-after" in job.result().headers for job in asked if job.result().status_code == 429)


def test_a_fault_answers_500_is_reported_and_the_server_lives(collection: KnownCollection, tmp_path: Path) -> None:
    reports: list[str] = []

    def fail() -> None:
        raise RuntimeError("the model is broken")

    collection.work = fail
    with served(collection, tmp_path, report=reports.append) as client:
        found = client.post("/api/search", json={"query": QUERY})
        assert found.status_code == 500
        assert "broken" not in found.text
        assert "the model is broken" in reports[0]
        collection.work = lambda: None
        assert client.post("/api/search", json={"query": QUERY}).status_code == 200


def test_a_collection_that_cannot_be_reached_is_told_and_reported(collection: KnownCollection, tmp_path: Path) -> None:
    def away() -> None:
        raise AwayError("Milvus at http://10.1.1.1 failed.")

    collection.work = away
    reported: list[str] = []
    with served(collection, tmp_path, report=reported.append) as client:
        answer = client.post("/api/search", json={"query": QUERY})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"detail": "The index cannot be reached; the server's log has the reason. Try again later."}
    assert reported == ["Milvus at http://10.1.1.1 failed."]


def test_the_collection_is_closed_with_the_server(collection: KnownCollection, tmp_path: Path) -> None:
    with served(collection, tmp_path):
        assert not collection.closed
    assert collection.closed
