"""``mesm serve`` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


@contextmanager
def serving(*words: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run ``mesm serve`` on a free port; yield the process, and what it printed by its titles."""
    command = [sys.executable, "-m", "mesm_cli.app", "serve", *map(str, words), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        printed = {}
        assert process.stdout is not None
        for line in process.stdout:
            title, _, rest = line.strip().partition(": ")
            printed[title] = rest
            if title == "Page":
                break
        yield process, printed
    finally:
        process.kill()
        process.communicate()


def prepare_all(client: httpx.Client) -> str:
    """Prepare all videos; return the state in which the job ended."""
    job = client.post("/api/prepare", json={}).json()
    while job["state"] in ("waiting", "running"):
        time.sleep(0.05)
        job = client.get(f"/api/jobs/{job['id']}").json()
    return str(job["state"])
