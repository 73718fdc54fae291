"""Many clients that search at the same time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx


@dataclass
class Load:
    """Counts of responses by status (0: the connection failed) and the duration of each search in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


async def search_at_once(address: str, *, clients: int, seconds: float) -> Load:
    """Run ``clients`` that search in a loop for ``seconds``; after a 429 each waits for the time of Retry-After."""
    load, ends = Load(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def work(client: httpx.AsyncClient, number: int) -> None:
        turn = 0
        while time.monotonic() < ends:
            turn += 1
            began = time.monotonic()
            try:
                answer = await client.post("/api/search", json={"query": f"person {number} opens door {turn}"})
            except httpx.HTTPError:
                load.statuses[0] += 1
                continue
            load.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                load.seconds.append(time.monotonic() - began)
            else:
                await asyncio.sleep(float(answer.headers.get("retry-after", 0)))

    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=120) as client:
        await asyncio.gather(*(work(client, number) for number in range(clients)))
    return load


def resident_bytes(process: int) -> int:
    """Return the memory of a process that is resident."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process has no memory")
