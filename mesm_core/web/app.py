"""Builds the ASGI application: the API, the page, and what protects them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mesm_core.errors import MesmError, OutputError
from mesm_core.inputs import printable
from mesm_core.version import __version__
from mesm_core.web.api import api_router, problem
from mesm_core.web.collection import AwayError, Collection
from mesm_core.web.desk import BusyError
from mesm_core.web.guard import Guard
from mesm_core.web.jobs import TooManyJobsError
from mesm_core.web.login import Keys, TokenWall, login_router
from mesm_core.web.service import Service
from mesm_core.web.settings import WebSettings
from mesm_core.web.site import Site
from mesm_core.web.workers import StoppedError, TimeLimitError, WorkerError

DESCRIPTION = """Find the moments of videos that a sentence describes.

Times are seconds from the start of a video. Where the server has a token, send `Authorization: Bearer TOKEN`.
Errors have the key `detail`. After 429, try again after the seconds in `Retry-After`."""
RETRY = {"retry-after": "1"}


def create_app(collection: Collection, settings: WebSettings) -> FastAPI:
    """Return the application that answers about a collection.

    Args:
        collection: closed when the application shuts down.
    """
    service = Service(collection, settings)
    site = Site()
    keys = None if settings.token is None else Keys(settings.token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="mesm",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # these pages load scripts from the network
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(api_router(service))
    app.include_router(site.router(token=keys is not None))
    app.include_router(login_router(keys, lambda message: site.page("login.html", message=message)))
    _add_errors(app, settings)
    if keys is not None:
        app.add_middleware(TokenWall, keys=keys)
    app.add_middleware(
        Guard,
        host=settings.host,
        allowed=settings.allowed_hosts,
        upload_path=None if settings.uploads is None else "/api/videos",
        max_upload=settings.max_upload,
        report=settings.report,
    )
    return app


def _add_errors(app: FastAPI, settings: WebSettings) -> None:
    """Answer with ``{"detail": TEXT}`` whatever goes wrong."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, printable("; ".join(map(_mistake, error.errors()[:5])))[:1000])

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(TimeLimitError)
    async def too_long(_: Request, error: TimeLimitError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(MesmError)
    async def mistake(_: Request, error: MesmError) -> JSONResponse:
        return problem(422, printable(error))

    @app.exception_handler(OutputError)
    async def unwritable(_: Request, error: OutputError) -> JSONResponse:
        settings.report(str(error))
        return problem(507, "The server cannot write to its disk; its log has the reason.")

    @app.exception_handler(BusyError)
    @app.exception_handler(TooManyJobsError)
    async def busy(_: Request, __: Exception) -> JSONResponse:
        return problem(429, "Too many requests wait; try again later.", RETRY)

    @app.exception_handler(AwayError)
    async def away(_: Request, error: AwayError) -> JSONResponse:
        settings.report(str(error))
        return problem(503, "The index cannot be reached; the server's log has the reason. Try again later.", RETRY)

    @app.exception_handler(StoppedError)
    async def stopping(_: Request, __: Exception) -> JSONResponse:
        return problem(503, "The server is being stopped.")

    @app.exception_handler(WorkerError)
    async def died(_: Request, error: WorkerError) -> JSONResponse:
        settings.report(str(error))
        return problem(500, "A process of the server failed; its log has the reason.")


def _mistake(entry: Mapping[str, Any]) -> str:
    """Return what is wrong in a request, with the name of the value."""
    if entry["type"] == "json_invalid":
        return f"The body is not JSON: {entry['ctx']['error']} at character {entry['loc'][-1]}"
    return f"{'.'.join(map(str, entry['loc'][1:])) or 'body'}: {entry['msg']}"
