"""Checks of a checkpoint's content, made before anything is built or allocated from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mesm_core.errors import CheckpointError
from mesm_core.inputs import shown

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DEEPEST = 20
MOST_VALUES = 1_000_000
MOST_EPOCHS = 10**9


def check_content(content: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if a part of a checkpoint has the wrong type, or its weights are not finite.

    Args:
        content: the content of the file, with all parts of a ``Checkpoint``.
    """
    check_weights(content["model"], path)
    text = content["text"]
    if not isinstance(text, Mapping):
        raise _invalid(path, "text", text)
    tensors = {name: value for name, value in text.items() if isinstance(value, torch.Tensor)}
    check_weights(tensors, path, what="vectors of the text encoder")
    plain = {f"text.{name}": value for name, value in text.items() if name not in tensors}
    plain |= {name: content.get(name, {}) for name in ("config", "paths", "metrics", "data_statistics", "calibration")}
    left = MOST_VALUES
    for name, value in plain.items():
        left = _count_plain(value, path, name, left, 0)
    for name in ("config", "paths", "metrics", "training", "data_statistics", "calibration"):
        if not isinstance(content.get(name, {}), dict):
            raise _invalid(path, name, content[name])
    epoch = content["epoch"]
    if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch <= MOST_EPOCHS:
        raise _invalid(path, "epoch", epoch)
    _check_paths(content["paths"], path)
    _check_statistics(content.get("data_statistics", {}), path)


def check_weights(weights: object, path: Path, *, what: str = "weights") -> None:
    """Raise CheckpointError if weights are not floating-point tensors by name, or are NaN or infinite.

    Args:
        path: path of the checkpoint, for messages; what: name of the tensors in messages.
    """
    if not isinstance(weights, Mapping):
        raise _invalid(path, "model", weights)
    wrong = []
    for name, value in weights.items():
        if not isinstance(name, str) or not is_sound(value):
            raise CheckpointError(
                f"{path} is damaged: {shown(name)} among its {what} is not a floating-point tensor.",
                hint="Copy the file again, or use another.",
            )
        if not bool(torch.isfinite(value).all()):
            wrong.append(name)
    if wrong:
        raise CheckpointError(
            f"{path} is unusable: {len(wrong)} of its {len(weights)} {what} contain NaN or infinity, first {wrong[0]}.",
            hint="Its training diverged: use an earlier checkpoint, or train with a smaller train.lr.",
        )


def is_sound(value: object) -> bool:
    """Return whether a value is a dense floating-point tensor whose values are all stored in the file.

    A forged tensor with strides of 0 may have more values than its storage; reading them could exhaust the memory.
    """
    if not isinstance(value, torch.Tensor) or value.dtype not in FLOATS or value.layout != torch.strided:
        return False
    return value.device.type == "cpu" and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def check_training(state: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if the state needed for resuming is missing or has the wrong type."""
    if "shares" not in state:
        raise CheckpointError(f"{path} has weights, but no state to resume training from.")
    for name in ("step", "waiting"):
        if not _is_count(state.get(name)):
            raise _invalid(path, f"training.{name}", state.get(name))
    if not _is_count(state.get("batches")) or state["batches"] == 0:
        raise _invalid(path, "training.batches", state.get("batches"))
    if not _is_real(state.get("seconds")):
        raise _invalid(path, "training.seconds", state.get("seconds"))
    for name, fits in (("best_score", _is_real), ("best_epoch", _is_count)):
        if name not in state or not (state[name] is None or fits(state[name])):
            raise _invalid(path, f"training.{name}", state.get(name))
    shares = state["shares"]
    if not isinstance(shares, list) or not shares or not all(map(_is_share, shares)):
        raise _invalid(path, "training.shares", shares)
    if not isinstance(state.get("optimizer"), dict):
        raise _invalid(path, "training.optimizer", state.get("optimizer"))


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _check_paths(paths: Mapping[str, Any], path: Path) -> None:
    if not paths:
        return
    features = paths.get("features")
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise _invalid(path, "paths.features", features)
    for name in ("annotations", "text"):
        if not isinstance(paths.get(name), str):
            raise _invalid(path, f"paths.{name}", paths.get(name))


def _check_statistics(statistics: Mapping[str, Any], path: Path) -> None:
    if not statistics:
        return
    for name, fits in _BY_FILE.items():
        value = statistics.get(name)
        if not isinstance(value, list) or len(value) != len(statistics["files"]) or not all(map(fits, value)):
            raise _invalid(path, f"data_statistics.{name}", value)
    origins = statistics.get("origins", [])  # checkpoints of earlier versions have none
    if not isinstance(origins, list) or not all(isinstance(origin, dict) for origin in origins):
        raise _invalid(path, "data_statistics.origins", origins)
    for name in ("rate", "unknown"):
        if not _is_real(statistics.get(name)):
            raise _invalid(path, f"data_statistics.{name}", statistics.get(name))
    for name in ("longest", "median"):  # checkpoints of earlier versions have neither
        if name in statistics and not _is_length(statistics[name]):
            raise _invalid(path, f"data_statistics.{name}", statistics[name])


def _is_share(share: object) -> bool:
    if not isinstance(share, dict) or not _is_count(share.get("queries")) or not isinstance(share.get("sums"), dict):
        return False
    return all(
        isinstance(name, str) and is_sound(value) and value.numel() == 1 for name, value in share["sums"].items()
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_real(value: object) -> bool:
    return isinstance(value, float) or _is_count(value)


def _is_length(value: object) -> bool:
    return isinstance(value, float) and 0 < value < math.inf


_BY_FILE = {"files": _is_name, "widths": _is_count, "norms": _is_real}


def _count_plain(value: object, path: Path, name: str, left: int, depth: int) -> int:
    """Return how many more values are allowed; raise CheckpointError if one is not JSON-compatible, or too many."""
    if value is None or isinstance(value, str | bool | int | float):
        return left - 1
    if depth > DEEPEST or left < 0 or not isinstance(value, list | tuple | dict):
        raise _invalid(path, name, value)
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise _invalid(path, name, value)
    for item in value.values() if isinstance(value, dict) else value:
        left = _count_plain(item, path, name, left, depth + 1) - 1
        if left < 0:
            raise _invalid(path, name, value)
    return left


def _invalid(path: Path, name: str, value: object) -> CheckpointError:
    given = f"a {type(value).__name__}" if isinstance(value, torch.Tensor | list | dict) else shown(value)
    return CheckpointError(
        f"{path} is damaged: its '{name}' is {given}, which is not valid there.",
        hint="Copy the file again, or use another.",
    )
