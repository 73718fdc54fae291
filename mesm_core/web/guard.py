"""What every request passes before it reaches the API: its host, its origin, its size and its speed are checked.

The same class adds the headers that tell browsers what the page may do, and answers 500 where the server has a fault.
"""

from __future__ import annotations

import asyncio
import ipaddress
import traceback
from collections.abc import Callable, Collection, Sequence
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mesm_core.errors import ConfigError
from mesm_core.web.settings import BODY_BYTES

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS_ONLY = "headers_only"
"""Name in the state of a request that needs no body in its answer."""
BODY_SECONDS = 30.0
"""Longest wait for the next part of a body, and for the whole of a small one."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, forms would be sent with a null origin
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Return whether an address reaches this machine only.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("mine.local")
    (True, True, False, False)
    """
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(netloc: str) -> str:
    """Return the name or address in a Host header, in lower case and without the port; empty if it is malformed.

    >>> host_name("Localhost:8000"), host_name("[::1]:80"), host_name("a@b"), host_name("")
    ('localhost', '::1', '', '')
    """
    try:
        parts = urlsplit(f"//{netloc}")
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return ""
    return "" if "@" in netloc or "/" in netloc else (parts.hostname or "")


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of hosts without their ports.

    Raises:
        ConfigError: one is not a name, for example an address with a path.
    """
    found = tuple(host_name(name) for name in names)
    for name, host in zip(names, found, strict=True):
        if not host:
            raise ConfigError(
                f"--allowed-host {name}: this is not the name of a host.", hint="Give it like videos.example.org."
            )
    return found


class Guard:
    """Middleware around the whole server.

    Args:
        host: the address that the server listens on; allowed: further names that the Host header may have.
        upload_path: the path that takes bodies of up to ``max_upload`` bytes; None if uploads are off.
        report: called with the description of a fault.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        allowed: Collection[str],
        upload_path: str | None,
        max_upload: int,
        report: Callable[[str], None],
    ) -> None:
        self._app = app
        self._addresses_allowed = not is_loopback(host)
        self._allowed = {name.lower() for name in allowed}
        self._names = LOOPBACK_NAMES | self._allowed | {host.lower()}
        self._upload_path = upload_path
        self._max_upload = max_upload
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["method"] == "HEAD":
            # Answered as GET; the server sends no body, and a route may leave it out.
            scope = {**scope, "method": "GET", "state": {**scope.get("state", {}), HEADERS_ONLY: True}}
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            status, detail = refusal
            await JSONResponse({"detail": detail}, status)(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, self._limited(scope, receive), send_with_headers)
        except Exception:
            self._report(traceback.format_exc())
            if started:
                raise  # the connection is closed, which shows the client that the answer is incomplete
            failure = JSONResponse({"detail": "The server failed; its log has the reason."}, 500)
            await failure(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return the status and the reason for which a request is refused, or None."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(host_name(hosts[0])):
            return 400, "This server does not have the name in the Host header; --allowed-host NAME adds a name."
        if not self._same_origin(scope["method"], hosts[0], headers):
            return 403, "Requests from pages of other servers are refused."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self._limit(scope):
            return 413, f"The body is too large; at most {self._limit(scope)} bytes are accepted."
        return None

    def _is_own(self, name: str) -> bool:
        if name in self._names:
            return True
        if not self._addresses_allowed:
            return False
        try:
            # Attacks that let a name point to this server need a name, so addresses are safe.
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _same_origin(self, method: str, host: str, headers: Headers) -> bool:
        """Return whether a request comes from our own page or from no page. Links from elsewhere may open the page."""
        navigates = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not navigates:
            return False
        origin = headers.get("origin")
        if origin is None or (navigates and method in SAFE_METHODS):
            return True
        netloc = origin.partition("://")[2]
        return netloc.lower() == host.lower() or (netloc != "" and host_name(netloc) in self._allowed)

    def _limit(self, scope: Scope) -> int:
        uploads = scope["method"] == "POST" and scope["path"] == self._upload_path
        return self._max_upload if uploads else BODY_BYTES

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return a ``receive`` that ends bodies that are too large or too slow."""
        limit, got = self._limit(scope), 0
        deadline = None if limit > BODY_BYTES else asyncio.get_running_loop().time() + BODY_SECONDS
        complete = False

        async def limited() -> Message:
            nonlocal got, complete
            if complete:
                return await receive()  # waits until the client disconnects
            left = BODY_SECONDS if deadline is None else deadline - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.01))
            except TimeoutError as error:
                raise HTTPException(408, "The body came too slowly.", headers={"connection": "close"}) from error
            got += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if got > limit:
                raise HTTPException(413, f"The body is too large; at most {limit} bytes are accepted.")
            return message

        return limited
