"""Diagnosis of the installation: versions, devices, threads, caches, and the data that is present."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import torch

from mesm_core.build.data import data_paths
from mesm_core.build.encoders import find_encoder
from mesm_core.build.paths import Paths
from mesm_core.config.load import load_config, preset_names
from mesm_core.config.schema import Config
from mesm_core.data.readers import read_split
from mesm_core.errors import MesmError, count
from mesm_core.fast.bfloat16 import fast_bfloat16
from mesm_core.text.cache import default_cache_path
from mesm_core.version import __version__

PACKAGES = ("torch", "numpy", "h5py", "scipy", "pydantic", "typer", "rich", "safetensors", "nltk", "tensorboard",
            "matplotlib", "fastapi", "uvicorn", "wandb", "mlflow", "pymilvus", "milvus-lite", "ray")  # fmt: skip
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND",
                    "KMP_BLOCKTIME", "KMP_AFFINITY")  # fmt: skip
ANNOTATIONS = "put the dataset's annotation files there, or give --annotations DIR"


@dataclass(frozen=True)
class Found:
    """A file or folder that a preset needs; ``state`` is ok, missing or damaged, ``how`` says how to fix it."""

    dataset: str
    what: str
    path: Path
    state: str
    detail: str = ""
    how: str = ""


def installed() -> dict[str, str | None]:
    """Return the versions of mesm, Python and the packages in ``PACKAGES``; None for packages not installed."""
    found: dict[str, str | None] = {"mesm": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = str(torch.__version__) if name == "torch" else version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def devices() -> list[dict[str, Any]]:
    """Return the available devices: name, description, memory in bytes if known, and bfloat16 support."""
    processor = platform.processor() or platform.machine()
    found: list[dict[str, Any]] = [
        {"name": "cpu", "what": processor, "memory": _host_memory(), "bf16": fast_bfloat16(), "problem": None}
    ]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about: dict[str, Any] = {"name": f"cuda:{number}", "what": "", "memory": None, "bf16": False, "problem": None}
        try:
            properties = torch.cuda.get_device_properties(number)
            about |= {"what": properties.name, "memory": properties.total_memory, "bf16": properties.major >= 8}
        except RuntimeError as error:
            about["problem"] = str(error).splitlines()[0]
        found.append(about)
    return found


def threads() -> dict[str, Any]:
    """Return the number of cores, usable cores and torch threads, and the environment variables for threads."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    environment = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    return {
        "cores": os.cpu_count(),
        "usable": allowed,
        "torch": torch.get_num_threads(),
        "environment": environment,
    }


def text_cache() -> dict[str, Any]:
    """Return the path of the cache of encoded sentences, its size in bytes, its number of sentences, and a problem."""
    path = default_cache_path()
    about: dict[str, Any] = {"path": str(path), "bytes": 0, "sentences": None, "problem": None}
    try:
        files = [file for ending in ("", "-wal", "-shm") if (file := path.with_name(path.name + ending)).is_file()]
        about["bytes"] = sum(file.stat().st_size for file in files)
        if path.is_file():
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
                about["sentences"] = connection.execute("SELECT COUNT(*) FROM text").fetchone()[0]
    except (OSError, sqlite3.Error) as error:
        about["problem"] = f"it cannot be read ({error}); delete it, and it is written again"
    return about


def found_data(root: Path) -> list[Found]:
    """Return the files that each preset needs, with their state below the data folder."""
    return [item for name in preset_names() for item in _found(name, load_config(name), root)]


def _found(name: str, config: Config, root: Path) -> Iterator[Found]:
    paths = data_paths(config, root)
    if not paths.annotations.is_dir():
        yield Found(name, "annotations", paths.annotations, "missing", how=ANNOTATIONS)
    for split in dict.fromkeys((config.dataset.train, *config.dataset.eval)) if paths.annotations.is_dir() else ():
        yield _inspected(
            Found(name, f"annotations {split}", paths.annotations, "ok"),
            partial(_queries, config, paths, split),
            how=ANNOTATIONS,
            there=True,
        )
    for path in paths.features:
        yield _inspected(
            Found(name, "features", path, "ok"),
            partial(_videos, path),
            how=f"mesm prepare npy2hdf5 FOLDER {path}",
            there=path.is_file(),
        )
    yield _text_file(name, config, paths)
    if find_encoder(config.text.encoder).needs_counts:
        counts = paths.annotations / config.text.counts
        how = f"mesm count-tokens --dataset {name}"
        yield Found(name, "count file", counts, *(("ok",) if counts.is_file() else ("missing", "", how)))


def _text_file(name: str, config: Config, paths: Paths) -> Found:
    encoder = find_encoder(config.text.encoder)
    what, how = encoder.title, encoder.advice.format(path=paths.text, name=paths.text.name, dataset=name)
    if paths.text.is_file():
        return Found(name, what, paths.text, "ok", f"{paths.text.stat().st_size / 1e6:.0f} MB")
    return Found(name, what, paths.text, "missing", how=how)


def _inspected(item: Found, inspect: Callable[[], str], *, how: str, there: bool) -> Found:
    """Return the item with a description of its content, or of the problem."""
    missing = replace(item, state="missing", how=how)
    if not there:
        return missing
    try:
        return replace(item, detail=inspect())
    except MesmError as error:
        if error.message.startswith("No annotation file"):
            return replace(missing, detail=error.message.rstrip("."))
        return replace(item, state="damaged", detail=error.message, how=error.hint or how)
    except OSError as error:
        return replace(item, state="damaged", detail=str(error), how="copy or write the file again")


def _queries(config: Config, paths: Paths, split: str) -> str:
    return count(len(read_split(config.dataset.name, paths.annotations, split).queries), "query")


def _videos(path: Path) -> str:
    with h5py.File(path, "r") as file:
        return count(len(file), "video")


def _host_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
