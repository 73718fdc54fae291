"""The page, the login form, and their static files. They are read when the server starts, and hold no user data."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class Site:
    """The templates and static files of the package."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("mesm_core.web", "templates"), autoescape=True, undefined=StrictUndefined
        )
        self._static: dict[str, tuple[bytes, str]] = {}
        for entry in files("mesm_core.web").joinpath("static").iterdir():
            suffix = entry.name[entry.name.rfind(".") :]
            if suffix in TYPES:
                self._static[entry.name] = (entry.read_bytes(), TYPES[suffix])

    def page(self, template: str, **values: object) -> str:
        """Return a template with values filled in; every value is escaped."""
        return self._templates.get_template(template).render(**values)

    def router(self, *, token: bool) -> APIRouter:
        """Return the routes of the page and its files.

        Args:
            token: whether clients need a token, and can log out.
        """
        router = APIRouter(include_in_schema=False)
        index = self.page("index.html", token=token)

        @router.get("/")
        async def show() -> HTMLResponse:
            return HTMLResponse(index, headers={"cache-control": "no-cache"})

        @router.get("/static/{name}")
        async def static(name: str) -> Response:
            if name not in self._static:
                raise HTTPException(404, "There is no such file.")
            content, kind = self._static[name]
            return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

        return router
