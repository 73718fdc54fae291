"""Downloading weights from a local stand-in server: complete and verified, or not at all."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mesm_core.backbones import fetching
from mesm_core.backbones.weights import known_weights, state_of
from mesm_core.errors import FeatureError, OutputError
from tests.backbones.stand_in_hub import Hub, serving

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REVISION = "0" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, and a table of its addresses: a URL and Hugging Face, with and without a checksum."""
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(fetching, "SECONDS", 5.0)
    for name in fetching.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    with serving(CONTENT) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        url = f'url = "{server.address}/models/f.pt"'
        there = f'huggingface = "openai/clip"\nrevision = "{REVISION}"\npath = "model.bin"'
        (tmp_path / "table.toml").write_text(
            f'[by-url]\nfile = "f.pt"\n{url}\nsha256 = "{DIGEST}"\n[loose-url]\nfile = "loose.pt"\n{url}\n'
            f'[by-hub]\nfile = "f.bin"\n{there}\nsha256 = "{DIGEST}"\n'
        )
        monkeypatch.setenv("MESM_WEIGHTS", str(tmp_path / "table.toml"))
        yield server


BOTH = pytest.mark.parametrize("name", ["by-url", "by-hub"])


def pull(name: str, **options: bool) -> Path:
    if name == "by-hub":
        pytest.importorskip("huggingface_hub")
    return fetching.pull(known_weights(name), **options)


def left(tmp_path: Path) -> list[str]:
    """Return the files in the cache, except locks."""
    files = (path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(str(path.relative_to(tmp_path / "cache" / "weights")) for path in files)


@BOTH
def test_pull_downloads_and_verifies_a_file(hub: Hub, tmp_path: Path, name: str) -> None:
    path = pull(name)
    assert path.read_bytes() == CONTENT
    assert state_of(known_weights(name), path) == "verified"
    assert left(tmp_path) == [path.name, f"{path.name}.sha256"]
    wanted = "/models/f.pt" if name == "by-url" else f"/openai/clip/resolve/{REVISION}/model.bin"
    assert {line.split()[1] for line in hub.asked} == {wanted}
    asked = len(hub.asked)
    with pytest.raises(OutputError, match="already exists"):
        pull(name)
    assert len(hub.asked) == asked
    assert pull(name, overwrite=True) == path


@BOTH
def test_a_broken_transfer_is_resumed(hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "by-hub":  # it keeps whole chunks only
        monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.breaks = [100_000]
    assert pull(name).read_bytes() == CONTENT
    assert any(line.startswith("GET") and line.endswith("bytes=100000-") for line in hub.asked)


def test_the_next_pull_resumes_a_broken_transfer(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [100_000, 0, 0, 0]
    with pytest.raises(FeatureError, match="continues it") as raised:
        pull("by-url")
    assert "the connection broke after 100,000 of 300,000 bytes" in raised.value.message
    assert left(tmp_path) == [".partial/by-url/f.pt", ".partial/by-url/f.pt.etag"]
    hub.breaks, hub.asked = [], []
    assert pull("by-url").read_bytes() == CONTENT
    assert hub.asked == ["GET /models/f.pt bytes=100000-"]
    assert left(tmp_path) == ["f.pt", "f.pt.sha256"]


def test_a_file_that_changed_on_the_server_is_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [100_000, 0, 0, 0]
    with pytest.raises(FeatureError):
        pull("loose-url")
    hub.breaks, hub.content = [], bytes(reversed(CONTENT))
    assert pull("loose-url").read_bytes() == hub.content
    assert state_of(known_weights("loose-url"), tmp_path / "cache" / "weights" / "loose.pt") == "unverified"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_complete_or_too_long_part_is_handled(hub: Hub, tmp_path: Path, ranges: bool) -> None:
    """All bytes were received when the process was killed; a server without ranges sends them again."""
    hub.ranges = ranges
    parts = tmp_path / "cache" / "weights" / ".partial" / "by-url"
    parts.mkdir(parents=True)
    (parts / "f.pt").write_bytes(CONTENT)
    assert pull("by-url").read_bytes() == CONTENT
    (parts).mkdir(parents=True, exist_ok=True)
    (parts / "f.pt").write_bytes(CONTENT + b"more")
    assert pull("by-url", overwrite=True).read_bytes() == CONTENT


@BOTH
def test_a_file_with_a_wrong_hash_is_refused_and_removed(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.content = b"x" + CONTENT[1:]
    with pytest.raises(FeatureError, match="its SHA-256 is"):
        pull(name)
    assert left(tmp_path) == []
    hub.content = CONTENT
    assert pull(name).read_bytes() == CONTENT


@BOTH
def test_too_little_disk_space_is_refused_before_the_download(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.claims = 10**10 * 6
    if name == "by-hub":
        hub.claims = 10**15
    with pytest.raises(OutputError, match=r"needs about .* are free in"):
        _with_little_room(name)
    assert left(tmp_path) == []


def _with_little_room(name: str) -> Path:
    import os
    from unittest import mock

    real = os.statvfs
    little = mock.Mock(f_bavail=10, f_frsize=4096, f_blocks=1000)
    with mock.patch("os.statvfs", lambda path: little if "cache" in str(path) or "pytest" in str(path) else real(path)):
        return pull(name)


@BOTH
def test_a_disk_that_fills_up_during_a_download_is_reported(hub: Hub, tmp_path: Path, name: str) -> None:
    if name == "by-hub":
        pytest.importorskip("huggingface_hub")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="could not be written") as raised:
            pull(name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert " free in " in raised.value.message
    assert left(tmp_path) == []


@BOTH
def test_offline_variables_prevent_the_download(
    hub: Hub, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FeatureError, match="HF_HUB_OFFLINE is set") as raised:
        pull(name)
    entry = known_weights(name)
    assert entry.source in str(raised.value)
    assert str(tmp_path / "cache" / "weights" / entry.file) in str(raised.value.hint)
    assert hub.asked == []
    assert not (tmp_path / "cache").exists()


@BOTH
def test_a_missing_network_is_reported(hub: Hub, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name that does not exist, as without a network, fails without delay."""
    table = (tmp_path / "table.toml").read_text()
    (tmp_path / "table.toml").write_text(table.replace(hub.address, "http://127.0.0.1:1"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(FeatureError, match="could not be downloaded from") as raised:
        pull(name)
    assert str(tmp_path / "cache" / "weights" / known_weights(name).file) in str(raised.value.hint)
    assert left(tmp_path) == []


@BOTH
def test_a_file_missing_on_the_server_is_reported(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.status = 404
    with pytest.raises(FeatureError, match="the server answered 404"):
        pull(name)
    assert left(tmp_path) == []


def test_a_web_page_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.kind = "text/html; charset=utf-8"
    with pytest.raises(FeatureError, match="sent a web page"):
        pull("loose-url")
    hub.kind, hub.claims = "application/octet-stream", 10**12
    with pytest.raises(FeatureError, match="has 1,000,000,000,000 bytes"):
        pull("by-url")
    assert left(tmp_path) == []


def test_only_one_process_downloads_a_file(hub: Hub, tmp_path: Path) -> None:
    from filelock import FileLock

    folder = tmp_path / "cache" / "weights" / ".partial"
    folder.mkdir(parents=True)
    with FileLock(folder / "by-url.lock"), pytest.raises(OutputError, match="Another process is downloading"):
        pull("by-url")


def test_a_missing_huggingface_hub_is_reported(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(FeatureError, match="needs the package huggingface_hub") as raised:
        fetching.pull(known_weights("by-hub"))
    assert "pip install 'mesm[hub]'" in str(raised.value.hint)
    assert fetching.pull(known_weights("by-url")).read_bytes() == CONTENT


def test_the_pull_command(hub: Hub, mesm, tmp_path: Path) -> None:
    done = mesm("weights", "pull", "by-url")
    assert done.code == 0, done.err
    assert str(tmp_path / "cache" / "weights" / "f.pt") in done.out
    hub.status = 500
    failed = mesm("weights", "pull", "loose-url")
    assert failed.code == 2
    assert "the server answered 500" in failed.err
