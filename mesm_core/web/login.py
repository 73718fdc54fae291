"""The token that clients need: in the Authorization header, or in a cookie that the login form sets."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "mesm_session"
COOKIE_SECONDS = 30 * 86_400
OPEN_PATHS = frozenset({"/login", "/api/health"})
"""Paths that need no token, besides those of static files, which hold nothing about the collection."""


class Keys:
    """Checks tokens and cookies in constant time. The cookie is derived from the token, and does not reveal it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self.cookie = hmac.new(self._token, b"mesm serve cookie", hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Return whether a text is the token."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    def admits(self, headers: Headers) -> bool:
        """Return whether a request has the token or the cookie."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        try:
            cookies: SimpleCookie = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        morsel = cookies.get(COOKIE)
        return morsel is not None and hmac.compare_digest(morsel.value.encode("utf-8", "replace"), self.cookie.encode())


class TokenWall:
    """Middleware that lets only clients with the token pass; others reach the login form."""

    def __init__(self, app: ASGIApp, *, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith("/static/") or self._keys.admits(Headers(scope=scope)):
            await self._app(scope, receive, send)
        elif path == "/" and scope["method"] == "GET":
            await RedirectResponse("/login", 303)(scope, receive, send)
        else:
            refusal = JSONResponse(
                {"detail": "A token is needed: Authorization: Bearer TOKEN."}, 401, {"www-authenticate": "Bearer"}
            )
            await refusal(scope, receive, send)


def login_router(keys: Keys | None, form: Callable[[str], str]) -> APIRouter:
    """Return the routes of the login form.

    Args:
        keys: None if the server has no token; the form then leads to the page.
        form: returns the page with the form and a message.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    def show(request: Request) -> Response:
        admitted = keys is None or keys.admits(request.headers)
        return RedirectResponse("/", 303) if admitted else HTMLResponse(form(""))

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        if keys is None:
            return RedirectResponse("/", 303)
        body = (await request.body()).decode("utf-8", "replace")
        try:
            fields = parse_qs(body, max_num_fields=5)
        except ValueError:  # too many fields
            fields = {}
        if not keys.is_token(fields.get("token", [""])[0].strip()):
            return HTMLResponse(form("This token is wrong."), 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            COOKIE,
            keys.cookie,
            max_age=COOKIE_SECONDS,
            path="/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @router.post("/logout")
    def log_out() -> Response:
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    return router
