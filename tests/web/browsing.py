"""A browser for tests of the page: Chromium of the system, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser; skip the test if Playwright or Chromium is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as running:
        # Root and containers have no user namespaces, which the sandbox needs; the tests open their own server only.
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def wait_for(page: Any, condition: str, *, seconds: float = 15) -> None:
    """Wait until a condition in JavaScript is true. Playwright's own function for this is refused by our policy."""
    for _ in range(round(seconds / 0.05)):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{condition} stayed false; the page says: {page.inner_text('main')}")


@contextmanager
def opened(browser: Any, address: str, *, width: int = 1000, scheme: str = "light") -> Iterator[Any]:
    """Yield a page of a server; fail if it writes to the console, or asks another server for anything."""
    context = browser.new_context(
        base_url=address, viewport={"width": width, "height": 800}, color_scheme=scheme, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith(address) else problems.append(sent.url))
    page.goto("/")
    yield page
    context.close()
    assert problems == []
