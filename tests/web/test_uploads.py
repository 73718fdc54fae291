"""Uploads: off by default, bounded, checked, and written under names that the server chooses."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.web.made import KnownCollection, served


def test_uploads_are_off_by_default(client: httpx.Client, clip: Path) -> None:
    assert client.post("/api/videos?name=a.mp4", content=clip.read_bytes()[:1000]).status_code == 405


def test_an_upload_becomes_a_video_of_the_collection(collection: KnownCollection, tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    with served(collection, tmp_path, uploads=folder, max_upload=10**6) as client:
        found = client.post("/api/videos", params={"name": "../../Été à la mer.mp4"}, content=clip.read_bytes())
        assert found.status_code == 201
        assert found.json()["name"] == "../../Été à la mer.mp4"
        (file,) = folder.iterdir()
        assert file.name.startswith("ete-a-la-mer-")
        assert file.suffix == ".mp4"
        assert file.read_bytes() == clip.read_bytes()
        assert client.get(f"/api/videos/{found.json()['id']}").json()["media_type"] == "video/mp4"
        assert client.get("/api/videos").json()["max_upload"] == 10**6


@pytest.mark.parametrize(
    ("name", "size", "status"), [("a.mp4", 999, 422), ("a.txt", 99, 422), ("a", 9, 422), ("a.mp4", 10**5 + 1, 413)]
)
def test_what_is_no_video_or_too_large_leaves_nothing(
    collection: KnownCollection, tmp_path: Path, name: str, size: int, status: int
) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    with served(collection, tmp_path, uploads=folder, max_upload=10**5) as client:
        for content in (b"x" * size, (b"x" * 1000 for _ in range(size // 1000 + 1))):
            assert client.post("/api/videos", params={"name": name}, content=content).status_code == status
        assert client.get("/api/videos").json()["total"] == 1
    assert list(folder.iterdir()) == []


def test_an_interrupted_upload_leaves_nothing(collection: KnownCollection, tmp_path: Path, clip: Path) -> None:
    import socket
    import time

    folder = tmp_path / "uploads"
    folder.mkdir()
    with served(collection, tmp_path, uploads=folder) as client:
        host, port = client.base_url.host, client.base_url.port
        assert port is not None
        with socket.create_connection((host, port)) as connection:
            head = f"POST /api/videos?name=a.mp4 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head.encode() + clip.read_bytes()[:5000])
            while not list(folder.iterdir()):
                time.sleep(0.01)
        while list(folder.iterdir()):
            time.sleep(0.01)
        assert client.get("/api/videos").json()["total"] == 1
