"""What a run does before its first epoch: hash its data, read the features, and encode the text."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mesm_core.build.check import wrong_rate
from mesm_core.build.fingerprint import files_by_role, hash_files
from mesm_core.build.training import TrainingParts
from mesm_core.data.resident import ResidentFeatures
from mesm_core.errors import DataError, MesmError
from mesm_core.official.checkpoint import checkpoint_files
from mesm_core.text.encoder import in_batches
from mesm_core.training.events import Busy, Event, Warned
from mesm_core.training.record import read_sessions

ENCODED_AT_ONCE = 512


def hash_data(parts: TrainingParts, init: Path | None) -> Generator[Event, None, dict[str, Any]]:
    """Return what the record of a run says about its data: paths, and size and hash of each file.

    Args:
        init: the checkpoint that the initial weights came from.

    Raises:
        DataError: a file cannot be read.
    """
    roles = files_by_role(parts.config, parts.paths, init=[] if init is None else checkpoint_files(init))
    files: dict[str, Any] = {}
    for done, (role, path) in enumerate(roles.items()):
        yield Busy("Hashing data", done, len(roles))
        files |= hash_files({role: path})
    return {
        "threads": torch.get_num_threads(),
        "paths": parts.paths.as_json(),
        "data": files,
        "init": None if init is None else str(init.resolve()),
        "skip_missing": bool(parts.skipped),
    }


def other_threads(directory: Path) -> list[str]:
    """Return a warning if an earlier session of a run on the CPU used another number of threads."""
    try:
        sessions = read_sessions(directory)
    except DataError:  # a damaged record does not prevent training
        return []
    before, now = sessions[-1].get("threads") if sessions else None, torch.get_num_threads()
    if before in (None, now) or sessions[-1]["device"] != "cpu":
        return []
    return [
        f"The run used {before} threads of torch, now {now}: the weights will differ in their last digits from those "
        f"of an uninterrupted run. OMP_NUM_THREADS={before} keeps them the same."
    ]


def read_features(parts: TrainingParts, device: torch.device) -> Iterator[Event]:
    """Read the features that fit in memory, to find damaged videos before anything is written.

    On CUDA they are also copied to the device if they fit in ``data.device_cache_gb``.
    """
    config, features = parts.config, parts.train_data.features
    datasets = (parts.train_data, *parts.eval_data.values())
    vids = list(dict.fromkeys(query.vid for data in datasets for query in data.queries))
    durations = {query.vid: query.duration for data in datasets for query in data.queries}
    resident = _resident(parts, vids, device)
    if isinstance(resident, Warned):
        yield resident
        resident = None
    rates = []
    for done, vid in enumerate(features.read_ahead(vids) if resident is None else vids, start=1):
        yield Busy("Reading features", done, len(vids))
        frames = features.frames(vid)
        if resident is not None:
            resident.put(vid, frames)
        if len(frames) < config.dataset.max_frames:
            rates.append(len(frames) / durations[vid])
    for data in datasets:
        data.resident = resident
    wrong = wrong_rate(statistics.median(rates), config.dataset.clip_len) if rates else None
    if wrong:
        yield Warned(f"The features' frame rate {wrong}.")


def _resident(parts: TrainingParts, vids: list[str], device: torch.device) -> ResidentFeatures | Warned | None:
    """Return room on the device for the features of videos, or a warning if they do not fit; None without CUDA.

    Raises:
        MesmError: the device has too little memory.
    """
    features, room = parts.train_data.features, parts.config.data.device_cache_gb
    if device.type != "cuda" or room == 0:
        return None
    lengths = {vid: features.length(vid) for vid in vids}
    needed = sum(lengths.values()) * features.dim * np.dtype(features.keep_as).itemsize / 2**30
    if needed > room:
        return Warned(
            f"The features need {needed:.1f} GB, more than data.device_cache_gb={room:g}, so they are copied to the "
            "device with every batch."
        )
    try:
        return ResidentFeatures(lengths, dim=features.dim, dtype=features.keep_as, device=device)
    except torch.OutOfMemoryError as error:
        raise MesmError(
            f"{device} has no memory for {needed:.1f} GB of features.",
            hint="Lower data.device_cache_gb, so that they are copied with every batch.",
        ) from error


def encode_text(parts: TrainingParts) -> Iterator[Event]:
    """Encode the sentences of all splits, in batches."""
    datasets = (parts.train_data, *parts.eval_data.values())
    sentences = list(dict.fromkeys(query.sentence for data in datasets for query in data.queries))
    for done, part in enumerate(in_batches(sentences, ENCODED_AT_ONCE)):
        yield Busy("Encoding text", done * ENCODED_AT_ONCE, len(sentences))
        parts.text.prepare(part)
