"""``mesm cache`` lists and clears the caches."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.video.made import film

QUERY = "a person opens the door"


def sizes(mesm: Any) -> dict[str, int]:
    done = mesm("cache", "list", "--json")
    assert done.code == 0, done.err
    return {cache["name"]: cache["entries"] for cache in json.loads(done.out)}


def test_caches_are_shown_and_cleared(mesm: Any, here: Path, zero: list[object]) -> None:
    assert sizes(mesm) == {"features": 0, "text": 0, "clips": 0}
    assert not (here.parent / "cache").exists()
    for name in ("a", "b"):
        film(here / f"{name}.mp4", 2 if name == "a" else 3)
        assert mesm("locate", f"{name}.mp4", QUERY, *zero).code == 0
    assert sizes(mesm) == {"features": 2, "text": 1, "clips": 0}
    assert "4.0 GB" in mesm("cache", "list").out
    oldest = next((here.parent / "cache" / "features").glob("*.npz"))
    os.utime(oldest, (0, 0))
    cleared = json.loads(mesm("cache", "clear", "features", "--older-than", 30, "--json").out)
    assert [(cache["name"], cache["entries"]) for cache in cleared] == [("features", 1)]
    assert "1 removed" in mesm("cache", "clear", "text").out
    assert sizes(mesm) == {"features": 1, "text": 0, "clips": 0}
    assert mesm("cache", "clear", "all").code == 0
    assert sizes(mesm) == {"features": 0, "text": 0, "clips": 0}
    assert not list((here.parent / "cache" / "files").iterdir())
    assert mesm("locate", "a.mp4", QUERY, *zero).code == 0


def test_clips_of_the_server_are_shown_and_cleared(mesm: Any, here: Path) -> None:
    clips = here.parent / "cache" / "clips"
    clips.mkdir(parents=True)
    for name in ("a.mp4", "b.jpg", "notes.txt"):
        (clips / name).write_bytes(b"x" * 10)
    assert sizes(mesm)["clips"] == 2
    (cleared,) = json.loads(mesm("cache", "clear", "clips", "--json").out)
    assert (cleared["entries"], cleared["size"]) == (2, 20)
    assert [path.name for path in clips.iterdir()] == ["notes.txt"]


def test_a_cache_that_cannot_be_cleared_is_reported(mesm: Any, here: Path) -> None:
    assert mesm("cache", "clear").code == 2
    assert mesm("cache", "clear", "text", "--older-than", 3).code == 2
    (here.parent / "cache").mkdir()
    (here.parent / "cache" / "text.sqlite").write_text("something else, that is no database" * 100)
    done = mesm("cache", "clear", "all")
    assert done.code == 2
    assert "text.sqlite cannot be used" in " ".join(done.err.split())
