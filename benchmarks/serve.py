"""Times `search` of `mesm serve` under load: python benchmarks/serve.py [VIDEOS [SECONDS]]

Makes small videos, prepares them with a CLIP of random weights (the text tower of the real size), and lets 1, 10 and
200 clients search for 30 seconds each. Every query is new, so that its sentence is encoded. Clients that get 429 wait
for one second. Nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.tiny_clip import write_clip
from tests.video.made import aged, film
from tests.web.load import resident_bytes, search_at_once
from tests.web.serving import prepare_all, serving


def main(videos: int, seconds: int) -> None:
    """Print a line for each number of clients."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MESM_CACHE"] = str(folder / "cache")
        weights = aged(write_clip(folder / "ViT-B-32.pt", text=(512, 12)))
        (folder / "videos").mkdir()
        for number in range(videos):
            film(folder / "videos" / f"{number:04}.mkv", seconds, rate=1)
        with serving(folder / "videos", "--weights", f"clip-b32={weights}") as (process, printed):
            with httpx.Client(base_url=printed["Page"], timeout=600) as client:
                assert prepare_all(client) == "done"
                client.post("/api/search", json={"query": "warm"}).raise_for_status()
            for clients in (1, 10, 200):
                before = resident_bytes(process.pid)
                load = asyncio.run(search_at_once(printed["Page"], clients=clients, seconds=30))
                after = resident_bytes(process.pid)
                low, high = min(load.seconds), max(load.seconds)
                print(
                    f"{videos} videos of {seconds} s, {clients} clients: {dict(load.statuses)}, answered in "
                    f"{statistics.median(load.seconds):.2f} s ({low:.2f} to {high:.2f}), "
                    f"memory {before / 1e6:.0f} -> {after / 1e6:.0f} MB, load {os.getloadavg()[0]:.1f}"
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, int(sys.argv[2]) if len(sys.argv) > 2 else 60)
