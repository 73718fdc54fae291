"""Fixtures: a small video, a collection with known answers, and clients of a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.video.made import film
from tests.web.made import KnownCollection, served


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 8 seconds that browsers play."""
    return film(tmp_path_factory.mktemp("videos") / "kitchen.mp4", sound=True)


@pytest.fixture
def collection(clip: Path) -> KnownCollection:
    """A collection of one video with known answers."""
    return KnownCollection(clip)


@pytest.fixture(scope="session")
def client(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server without a token and with one video, ``clip``; for all tests that leave it as it is."""
    with served(KnownCollection(clip), tmp_path_factory.mktemp("served")) as found:
        yield found
