"""200 clients at once for half a minute."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.tiny_clip import write_clip
from tests.video.made import aged, film
from tests.web.load import resident_bytes, search_at_once
from tests.web.serving import prepare_all, serving


@pytest.mark.slow
def test_200_clients_meet_no_error_but_429_and_memory_stays_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    weights = aged(write_clip(tmp_path / "ViT-B-32.pt"))
    (tmp_path / "videos").mkdir()
    for seconds in (4, 6, 8):
        film(tmp_path / "videos" / f"{seconds}.mp4", seconds)
    with serving(tmp_path / "videos", "--weights", f"clip-b32={weights}") as (process, printed):
        with httpx.Client(base_url=printed["Page"], timeout=60) as client:
            assert prepare_all(client) == "done"
        asyncio.run(search_at_once(printed["Page"], clients=200, seconds=10))
        before = resident_bytes(process.pid)
        load = asyncio.run(search_at_once(printed["Page"], clients=200, seconds=30))
        after = resident_bytes(process.pid)
        assert httpx.get(f"{printed['Page']}/api/health").status_code == 200
    assert set(load.statuses) <= {200, 429}
    assert load.statuses[200] > 100
    assert after - before < 20e6
