"""``mesm serve`` as a process, and its mistakes."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Result
from tests.video.made import film
from tests.web.serving import prepare_all, serving


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Send a signal; return the exit code and what was printed on standard error."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def error_text(result: Result) -> str:
    assert result.code == 2, (result.out, result.err)
    return " ".join(result.err.replace("│", " ").split())


def test_a_folder_is_prepared_and_term_ends_the_server(here: Path, zero: Sequence[object]) -> None:
    (here / "videos").mkdir()
    film(here / "videos" / "a.mp4", 4)
    with serving("videos", *zero) as (process, printed), httpx.Client(base_url=printed["Page"], timeout=30) as client:
        assert "Token" not in printed
        assert prepare_all(client) == "done"
        assert client.get("/api/videos").json()["prepared"] == 1
        client.close()
        code, errors = ended(process, signal.SIGTERM)
    assert code == 0, errors
    assert errors.rstrip().endswith("Stopped.")
    assert not list(here.parent.rglob("*.part"))


def test_other_machines_need_the_token_that_is_printed(here: Path, zero: Sequence[object]) -> None:
    film(here / "a.mp4", 2)
    with serving("a.mp4", *zero, "--host", "0.0.0.0") as (process, printed):
        address = printed["Page"].replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{address}/api/videos").status_code == 401
        headers = {"authorization": f"Bearer {printed['Token']}"}
        assert httpx.get(f"{address}/api/videos", headers=headers).json()["total"] == 1
        assert httpx.post(f"{address}/api/prepare", headers=headers, json={}).status_code == 202
        code, errors = ended(process, signal.SIGINT)  # during the preparation
    assert code == 130, errors
    assert not list(here.parent.rglob("*.part"))


def test_mistakes_are_found_before_the_server_starts(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "a.mp4", 2)
    zero = [*zero, "--port", 0]
    assert "There are no videos to serve" in error_text(mesm("serve", *zero))
    assert "No video at none" in error_text(mesm("serve", "none", *zero))
    (here / "empty").mkdir()
    assert "has no videos" in error_text(mesm("serve", "empty", *zero))
    assert "is not a size" in error_text(mesm("serve", "a.mp4", *zero, "--max-upload", "much"))
    assert "192.0.2.1:0 cannot be listened on" in error_text(mesm("serve", "a.mp4", *zero, "--host", "192.0.2.1"))
    assert "not the name of a host" in error_text(mesm("serve", "a.mp4", *zero, "--allowed-host", "https://a.example/"))
    (here / "token").write_text("short")
    assert "at least 16 characters" in error_text(mesm("serve", "a.mp4", *zero, "--token-file", "token"))
    assert "not a folder" in error_text(mesm("serve", "a.mp4", *zero, "--uploads", "a.mp4"))
    assert "mesm weights pull clip-b32" in error_text(mesm("serve", "a.mp4", "--port", 0))


def test_a_port_in_use_is_a_mistake_with_exit_code_2(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "a.mp4", 2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"Port {port} of 127.0.0.1 is in use" in error_text(mesm("serve", "a.mp4", *zero, "--port", port))


def test_missing_packages_are_named(mesm: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesm_cli.commands.serve.find_spec", lambda name: None)
    assert "pip install 'mesm[web]'" in error_text(mesm("serve", "a.mp4"))
