"""Fixtures for ``mesm locate``: a tiny CLIP, and an empty folder with its own cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_clip import write_clip
from tests.video.made import aged


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both towers of a tiny CLIP, in one file."""
    return aged(write_clip(tmp_path_factory.mktemp("weights") / "ViT-B-32.pt"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with its own cache."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def zero(here: Path, archive: Path) -> list[object]:
    """The options of zero-shot."""
    return ["--weights", f"clip-b32={archive}"]
