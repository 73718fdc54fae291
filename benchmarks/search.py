"""Size, build time, query time and memory of an index of invented vectors: ``python benchmarks/search.py``.

Each hour of video is one video with a vector every 4 seconds. Queries run in a process of their own; before the cold
query, the system is asked to drop the index's files from its cache. Every result is compared with float32 products.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mesm_core.search import Index, IndexedVideo
from mesm_core.search.choices import Choices
from mesm_core.search.manifest import Kept, Network
from mesm_core.search.segments import Segments, segment_spans
from mesm_core.search.writer import changing

WIDTH = 512
HOUR = 3600.0
TOP = 100
QUERIES = 15


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return (count, WIDTH) float32 random vectors of length 1."""
    vectors = rng.standard_normal((count, WIDTH), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def videos(hours: int) -> Iterator[tuple[IndexedVideo, Segments]]:
    """Yield invented videos of an hour."""
    spans = segment_spans(HOUR)
    for number in range(hours):
        vectors = unit(np.random.default_rng(number), len(spans)).astype(np.float16)
        id_ = f"{number:016x}"
        entry = IndexedVideo(
            id_, Path(f"/videos/{id_}.mp4"), id_, id_ * 4, 1, 1, HOUR, 1.0, len(spans), "2026-01-01T00:00:00+00:00",
            (Kept("clip-b32", id_),),
        )  # fmt: skip
        yield entry, Segments(vectors, spans)


def build(path: Path, hours: int, engine: str, uri: str | None) -> float:
    """Build an index and return the seconds without those of inventing vectors."""
    manifest = Choices(engine=engine, uri=uri).manifest([Network("clip-b32", "0" * 32, WIDTH)], clip_len=None)
    took = 0.0
    with changing(path, manifest) as writer:
        for entry, segments in videos(hours):
            began = time.perf_counter()
            writer.add(entry, segments)
            took += time.perf_counter() - began
        began = time.perf_counter()
        writer.commit()
    return took + time.perf_counter() - began


def resident() -> float:
    """Return the resident memory in MB without the pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return (int(sizes["RssAnon"]) + int(sizes["RssShmem"])) / 1000


def drop_cache(path: Path) -> None:
    """Ask the system to drop the files of an index from its cache."""
    os.sync()
    for file in path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def ask(path: Path, threads: int, *, check: bool) -> dict[str, float]:
    """Open an index and ask queries; return the times in seconds, and the memory in MB."""
    import torch

    torch.set_num_threads(threads)
    torch.ones(600, 600) @ torch.ones(600, 600)  # starts the threads
    torch.ones(64, 64).half() @ torch.ones(64, 1).half()
    before = resident()
    queries = unit(np.random.default_rng(2**31), QUERIES)
    began = time.perf_counter()
    index = Index.open(path)
    opened = time.perf_counter() - began
    times, found, processor = [], [], []
    most = before
    for query in queries:
        began, used = time.perf_counter(), time.process_time()
        found.append(index.query(query, TOP))
        times.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
        most = max(most, resident())
    recall = shares_found(index, queries[:3], found[:3]) if check else float("nan")
    return {
        "open": opened,
        "cold": times[0],
        "warm": statistics.median(times[1:]),
        "warm_best": min(times[1:]),
        "warm_processor": statistics.median(processor[1:]),
        "memory": most - before,
        "recall": recall,
    }


def shares_found(index: Index, queries: np.ndarray, found: list) -> float:
    """Return the mean share of the best float32 products that the hits have; equal products count as equal."""
    products = np.concatenate([each.vectors.astype(np.float32) @ queries.T for _, each in index.engine.vectors()])
    least = np.sort(products, axis=0)[-TOP]  # (queries,)
    shares = [sum(hit.similarity >= low - 1e-6 for hit in hits) / TOP for hits, low in zip(found, least, strict=True)]
    return statistics.mean(shares)


def compare_products(threads: int, rows: int = 450_000) -> None:
    """Print the CPU time of ways to multiply float16 vectors with a query, and their largest error."""
    import torch
    from torch.nn.functional import linear

    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    stored = np.concatenate([unit(rng, 50_000).astype(np.float16) for _ in range(rows // 50_000)])
    vectors, query = torch.from_numpy(stored), torch.from_numpy(unit(rng, 1)[0])
    half, short, kept = query.half(), query.bfloat16(), vectors.bfloat16()
    blocks = range(0, rows, 8192)
    ways = {
        "float16, linear layer": lambda: linear(half[None], vectors)[0],
        "float16, matrix of one column": lambda: (vectors @ half[:, None])[:, 0],
        "float16, vector": lambda: vectors @ half,
        "converted to float32 in blocks": lambda: torch.cat([vectors[b : b + 8192].float() @ query for b in blocks]),
        "converted to bfloat16 in blocks": lambda: torch.cat(
            [vectors[b : b + 8192].bfloat16() @ short for b in blocks]
        ),
        "stored in bfloat16": lambda: kept @ short,
    }
    exact = ways["converted to float32 in blocks"]()
    for name, way in ways.items():
        way()
        times = []
        for _ in range(7):
            began, used = time.perf_counter(), time.process_time()
            found = way()
            times.append((time.process_time() - used, time.perf_counter() - began))
        (used, _), took = min(times), min(wall for _, wall in times)
        error = float((found.float() - exact).abs().max())
        print(f"{name:<34} CPU {used * 1e3:6.1f} ms, wall {took * 1e3:6.1f} ms, error {error:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--engine", default="exact")
    parser.add_argument("--uri", help="of a Milvus server")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path("search-benchmark"))
    parser.add_argument("--ask", type=Path, help="only ask an index, and print JSON")
    parser.add_argument("--keep", action="store_true", help="keep the indexes")
    parser.add_argument("--products", action="store_true", help="only compare ways to multiply")
    given = parser.parse_args()
    if given.products:
        compare_products(given.threads)
        return
    if given.ask:
        print(json.dumps(ask(given.ask, given.threads, check=True)))
        return
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, load {os.getloadavg()[0]:.1f}")
    for hours in given.hours:
        path = given.folder / f"{given.engine}-{hours}"
        seconds = None
        if not path.exists():
            seconds = build(path, hours, given.engine, given.uri)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        drop_cache(path)
        command = [sys.executable, __file__, "--ask", str(path), "--threads", str(given.threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = {"hours": hours, "engine": given.engine, "segments": hours * 899, "bytes": size, "build": seconds}
        print(json.dumps(figures | json.loads(done.stdout) | {"load": os.getloadavg()[0]}), flush=True)
        if not given.keep:
            Index.open(path).engine.destroy()  # also what lies on a server
            shutil.rmtree(path)


if __name__ == "__main__":
    main()
