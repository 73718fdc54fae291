"""The server as a process: its port, its signals, and clients that are slow."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mesm_core.errors import ConfigError
from mesm_core.web import guard, server
from mesm_core.web.server import bind
from tests.web.made import KnownCollection, served


@pytest.fixture
def impatient(collection: KnownCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A client of a server that waits 0.2 s for headers and bodies."""
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    with served(collection, tmp_path) as client:
        yield client


def connected(client: httpx.Client) -> socket.socket:
    assert client.base_url.port is not None
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def test_a_port_in_use_is_a_message_that_names_it() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} of 127.0.0.1 is in use"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 70])
def test_addresses_of_other_machines_are_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(host)):
        bind(host, 0)


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_connections_without_complete_headers_are_closed(impatient: httpx.Client, start: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(start)
        assert connection.recv(10) == b""


def test_the_second_request_of_a_connection_may_not_be_slower_than_the_first(impatient: httpx.Client) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while b'"ok"' not in connection.recv(4096):
            pass
        connection.sendall(b"GET /")
        assert connection.recv(10) == b""


def test_a_body_that_does_not_come_is_refused(impatient: httpx.Client) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        assert b"408" in connection.recv(4096).split(b"\r\n")[0]


def test_a_request_with_a_slow_answer_is_not_cut_off(impatient: httpx.Client, collection: KnownCollection) -> None:
    collection.work = lambda: time.sleep(0.5)
    assert impatient.post("/api/search", json={"query": "a dog"}).status_code == 200


def test_headers_that_never_end_are_refused(client: httpx.Client) -> None:
    with connected(client) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        answer = b""
        try:
            for _ in range(100):
                connection.sendall(b"X-Long: " + b"x" * 1000 + b"\r\n")
            answer = connection.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            answer = b"400"
        assert b"400" in answer


def test_idle_connections_do_not_keep_others_out(client: httpx.Client) -> None:
    idle = [connected(client) for _ in range(50)]
    try:
        assert client.get("/api/health").json()["status"] == "ok"
    finally:
        for connection in idle:
            connection.close()


def test_requests_under_way_are_finished_when_the_server_stops(collection: KnownCollection, tmp_path: Path) -> None:
    started, gate, answers = threading.Event(), threading.Event(), []

    def work() -> None:
        started.set()
        gate.wait()

    collection.work = work
    with served(collection, tmp_path) as client:
        address = str(client.base_url)
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{address}/api/search", json={"query": "a"}))
        )
        asking.start()
        started.wait()
        threading.Timer(0.2, gate.set).start()
    asking.join()
    assert [answer.status_code for answer in answers] == [200]
