"""A local stand-in for Hugging Face and the authors' servers, which can break connections and send false headers."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """The content of the server, and its faults.

    ``content``: of its one file; ``breaks``: after how many bytes each next answer breaks off; ``claims``: the size
    it tells instead of the right one; ``status``, ``kind``: of its answers; ``ranges``: whether it sends parts;
    ``tag``: the file's ETag; ``asked``: ``METHOD PATH RANGE`` of the requests so far.
    """

    content: bytes
    breaks: list[int] = field(default_factory=list)
    claims: int | None = None
    status: int = 200
    kind: str = "application/octet-stream"
    ranges: bool = True
    tag: str | None = None
    address: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def etag(self) -> str:
        """The ETag: as on Hugging Face, the file's SHA-256."""
        return f'"{self.tag or hashlib.sha256(self.content).hexdigest()}"'


@contextmanager
def serving(content: bytes) -> Iterator[Hub]:
    """Run the server inside the context."""
    hub = Hub(content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._headers(0)

        def do_GET(self) -> None:
            begin = self._headers(1)
            if begin is None:
                return
            body = hub.content[begin:]
            if hub.breaks:
                self.wfile.write(body[: hub.breaks.pop(0)])
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(body)
            if hub.claims is not None:
                self.close_connection = True

        def _headers(self, body: int) -> int | None:
            asked = self.headers.get("Range")
            hub.asked.append(f"{self.command} {self.path} {asked or ''}".rstrip())
            size = len(hub.content) if hub.claims is None else hub.claims
            found = re.fullmatch(r"bytes=(\d+)-", asked or "")
            same = self.headers.get("If-Range") in {None, hub.etag}
            begin = int(found[1]) if found and hub.ranges and same else 0
            status = hub.status
            if status == 200 and begin:
                status = 206 if begin < size else 416
            self.send_response(status)
            self.send_header("ETag", hub.etag)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Type", hub.kind)
            if status == 416:
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            if status == 206:
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - begin if status < 400 else 0))
            self.end_headers()
            return begin if status < 400 else None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
