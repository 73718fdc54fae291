"""Statistics of the training data, kept in a checkpoint (``data_statistics``) to detect other features at inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mesm_core.data.dataset import MomentDataset
from mesm_core.data.origin import Origin, conflicts, described

SAMPLED_VIDEOS, SAMPLED_SENTENCES = 8, 500
RATE_TOLERANCE, LENGTH_TOLERANCE, UNKNOWN_TOLERANCE = 0.15, 0.25, 0.1


def data_statistics(dataset: MomentDataset) -> dict[str, Any]:
    """Return file names, feature widths, frame rate, frame norms, and the share of unknown words of a dataset.

    Computed from the first videos and sentences, except ``longest`` and ``median``: the durations in seconds of all
    videos. ``norms`` holds the median norm of the raw frames of each file; ``origins`` the attributes that record how
    each file's features were extracted, as far as the file has them.
    """
    durations = {query.vid: query.duration for query in dataset.queries}
    sample = {vid: dataset.features.raw(vid) for vid in list(durations)[:SAMPLED_VIDEOS]}
    parts = list(zip(*sample.values(), strict=True))
    rates = [min(map(len, files)) / durations[vid] for vid, files in sample.items()]
    origins = [dataset.features.origins(vid) for vid in sample]
    sentences = list(dict.fromkeys(query.sentence for query in dataset.queries))[:SAMPLED_SENTENCES]
    unknown = [flag for sentence in sentences for flag in dataset.words(sentence).unknown.tolist()]
    return {
        "files": [path.name for path in dataset.features.paths],
        "widths": [files[0].shape[1] for files in parts],
        "norms": [float(np.median(np.concatenate([np.linalg.norm(x, axis=1) for x in files]))) for files in parts],
        "origins": [dict(_shared(of_file)) for of_file in zip(*origins, strict=True)],
        "rate": float(np.median(rates)),
        "unknown": sum(unknown) / len(unknown),
        "longest": float(max(durations.values())),
        "median": float(np.median(list(durations.values()))),
    }


def _shared(origins: Sequence[Origin]) -> Origin:
    """Return the attributes that have the same value for all videos."""
    first = origins[0]
    return {name: first[name] for name in first if all(other.get(name) == first[name] for other in origins)}


def other_origins(then: Mapping[str, Any], files: Sequence[str], origins: Sequence[Origin]) -> Iterator[str]:
    """Yield a message for each feature file that was extracted differently from the features of training.

    Args:
        then: statistics of the training data; older checkpoints have no ``origins``, and yield nothing.
        files, origins: names of the current files, and the attributes of each.

    >>> statistics = {"origins": [{"backbone": "clip-b32", "clip_len": 2.0}]}
    >>> list(other_origins(statistics, ["a.h5"], [{"backbone": "pixels", "clip_len": 2.0}]))
    ['a.h5 was made with pixels, the features of training with clip-b32.']
    """
    for file, before, now in zip(files, then.get("origins", ()), origins, strict=False):
        differing = conflicts(now, before)
        if differing:
            ours, theirs = (described({name: pair[side] for name, pair in differing.items()}) for side in (0, 1))
            yield f"{file} was made with {ours}, the features of training with {theirs}."


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning for each statistic that differs from training; nothing if those of training are unknown.

    >>> before = {"files": ["a.h5"], "widths": [4], "norms": [1.0], "rate": 1.0, "unknown": 0.1}
    >>> list(differences(before, before | {"rate": 2.0}))
    ['The features have 2 frames a second, 1 at training: clip_len does not fit them.']
    """
    if not then:
        return
    if then["files"] != now["files"]:
        yield f"The feature files are {' + '.join(now['files'])}, {' + '.join(then['files'])} at training."
    yield from other_origins(then, now["files"], now.get("origins", ()))
    if then["widths"] != now["widths"]:
        yield f"The feature files are {now['widths']} wide, {then['widths']} at training: is their order different?"
    elif any(abs(a - b) > LENGTH_TOLERANCE * b for a, b in zip(now["norms"], then["norms"], strict=True)):
        lengths = [", ".join(f"{x:.3g}" for x in statistics["norms"]) for statistics in (now, then)]
        norms = f"norms of {lengths[0]}, {lengths[1]} at training"
        yield f"The features' frames have {norms}: were they extracted differently?"
    if abs(now["rate"] - then["rate"]) > RATE_TOLERANCE * then["rate"]:
        rates = f"{now['rate']:.2g} frames a second, {then['rate']:.2g} at training"
        yield f"The features have {rates}: clip_len does not fit them."
    if now["unknown"] > then["unknown"] + UNKNOWN_TOLERANCE:
        shares = f"{now['unknown']:.0%} of the words are outside the vocabulary, {then['unknown']:.0%} at training"
        yield f"The vocabulary differs: {shares}."
