"""Derives from a checkpoint how its features were extracted: backbones, row length, scaling and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

from mesm_core.backbones.registry import PRECOMPUTED
from mesm_core.config.backbones import BACKBONES
from mesm_core.config.schema import Config
from mesm_core.data.origin import Origin
from mesm_core.errors import FeatureError
from mesm_core.video.scale import Interpolation

CLIP = "clip-b32"
USUAL_CLIP_LEN = Fraction(1)
"""Seconds per row unless a model requires another length."""
TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of an extraction.

    ``backbones``: in the order in which their features are concatenated; ``clip_len``: seconds per row;
    ``interpolation``: used to scale frames; ``weights``: the required hash of each backbone's weights, or None for any.
    """

    backbones: tuple[str, ...] = (CLIP,)
    clip_len: Fraction = USUAL_CLIP_LEN
    interpolation: Interpolation = "bilinear"
    weights: tuple[str | None, ...] = (None,)


def recipe_of(config: Config, statistics: Mapping[str, Any], *, source: str) -> Recipe:
    """Return how the features that a checkpoint was trained on were extracted.

    The attributes of the training features are used first. Older and published checkpoints do not record them; for
    those the recipe follows from the names of the feature files, which are the preset's.

    Args:
        config: the checkpoint's settings; statistics: those of its training data; source: its path, for messages.

    Raises:
        FeatureError: these features cannot be extracted, or their recipe is unknown. The message names the file needed.
    """
    names = [Path(name).name for name in config.dataset.features]
    files = statistics.get("files") or names
    origins = list(statistics.get("origins") or [{}] * len(files))
    backbones = tuple(
        _backbone(origin, file, usual, source=source)
        for origin, file, usual in zip(origins, files, _fitted(names, len(files)), strict=True)
    )
    widths = [BACKBONES[name].width for name in backbones]
    if sum(widths) != config.model.video_dim:
        made = " and ".join(f"{name} ({width})" for name, width in zip(backbones, widths, strict=True))
        raise _cannot(
            source, f"its features are {config.model.video_dim} wide, not as wide as those of {made}", files=files
        )
    return Recipe(
        backbones=backbones,
        clip_len=_clip_len(config, origins, source=source, files=files),
        interpolation=cast("Interpolation", _agreed(origins, "interpolation", source) or "bilinear"),
        weights=tuple(_text(origin.get("weights")) for origin in origins),
    )


def _fitted(names: Sequence[str], count: int) -> Sequence[str]:
    return names if len(names) == count else [""] * count


def _backbone(origin: Origin, file: str, usual: str, *, source: str) -> str:
    """Return the backbone of a feature file: the recorded one, else the one whose file has its name or the preset's."""
    said = origin.get("backbone")
    if said is not None:
        if said in BACKBONES:
            return str(said)
        raise _cannot(source, f"it was trained on features of '{said}', which mesm does not extract", files=[file])
    for name in (file, usual):
        known = next((backbone for backbone, entry in BACKBONES.items() if entry.file == name), None)
        if known is not None:
            return known
        published = next((text for text in PRECOMPUTED.values() if name and text.startswith(f"{name} ")), None)
        if published is not None:
            why = (
                "it was trained on features that cannot be extracted, since their weights or recipe were not published"
            )
            raise _cannot(source, why, files=[published])
    raise _cannot(source, f"it does not record which backbone made the features in {file}", files=[file])


def _clip_len(config: Config, origins: Sequence[Origin], *, source: str, files: Sequence[str]) -> Fraction:
    said, wanted = _agreed(origins, "clip_len", source), config.dataset.clip_len
    if isinstance(said, int | float) and said > 0:
        if wanted > 0 and abs(said - wanted) > TOLERANCE * wanted:
            raise _cannot(
                source, f"its features had rows of {said:g} s, but its dataset.clip_len is {wanted:g}", files=files
            )
        return _fraction(float(said))
    if wanted > 0:
        return _fraction(wanted)
    raise _cannot(source, "it does not record how many seconds a row of its features covers", files=files)


def _agreed(origins: Sequence[Origin], key: str, source: str) -> str | int | float | None:
    """Return the common value of ``key`` in all origins that record it."""
    said = list(dict.fromkeys(origin[key] for origin in origins if key in origin))
    if len(said) > 1:
        values = " and ".join(f"{key} {value}" for value in said)
        raise FeatureError(
            f"{source} was trained on feature files with {values}; `mesm locate` does not combine them.",
            hint=_use_files("the feature files"),
        )
    return said[0] if said else None


def _fraction(seconds: float) -> Fraction:
    """Return the simple fraction, such as 1/3, that a recorded row length stands for."""
    return Fraction(seconds).limit_denominator(1000)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _cannot(source: str, why: str, *, files: Sequence[str]) -> FeatureError:
    return FeatureError(
        f"{source} cannot be asked about a video file: {why}.", hint=_use_files(f"its features ({' and '.join(files)})")
    )


def _use_files(what: str) -> str:
    return f'Give {what} of the video to `mesm predict CKPT --features FILE --video ID "query"`.'
