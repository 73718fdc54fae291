"""Check the recorded origin of feature files against the settings, or against a checkpoint's training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from mesm_core import hdf5
from mesm_core.config.backbones import BACKBONES
from mesm_core.config.schema import Config
from mesm_core.data.origin import Origin, described, read_origin
from mesm_core.data.statistics import other_origins
from mesm_core.inputs import open_hdf5


def origin_problems(
    config: Config, path: Path, vids: Iterable[str], *, place: int, statistics: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Return a description of the settings that a feature file was made with, and a message for each problem.

    Files without recorded settings, like most published ones, have no problems.

    Args:
        vids: the videos to check; place: index of the file among the concatenated files;
        statistics: the data statistics of a checkpoint, or an empty mapping.

    Raises:
        FeatureError: the file cannot be read.
    """
    with open_hdf5(path) as file:
        nodes = (hdf5.find_video(file, vid) for vid in vids)
        counted = Counter(tuple(read_origin(node).items()) for node in nodes if isinstance(node, h5py.Dataset))
    kinds = [(dict(items), number) for items, number in counted.most_common()]
    if len(kinds) > 1:
        examples = "; ".join(f"{number} with {described(kind)}" for kind, number in kinds[:3])
        return "", [f"videos were made with different settings: {examples}"]
    origin: Origin = kinds[0][0] if kinds else {}
    return described(origin) if origin else "", list(
        _problems(config, path, origin, place=place, statistics=statistics)
    )


def _problems(
    config: Config, path: Path, origin: Origin, *, place: int, statistics: Mapping[str, Any]
) -> Iterator[str]:
    clip_len, wanted = origin.get("clip_len"), config.dataset.clip_len
    if isinstance(clip_len, int | float) and wanted > 0 and abs(clip_len - wanted) > 0.01 * wanted:
        yield f"rows of {clip_len:g} s, but dataset.clip_len is {wanted:g}"
    usual = Path(config.dataset.features[place]).name if place < len(config.dataset.features) else ""
    expected = next((name for name, entry in BACKBONES.items() if entry.file == usual), None)
    backbone = origin.get("backbone")
    if expected is not None and backbone not in (None, expected):
        yield f"made with {backbone}, but the preset's {usual} is made with {expected}"
    before = [origins] if (origins := _at(statistics.get("origins", ()), place)) else []
    for difference in other_origins({"origins": before}, [path.name], [origin]):
        yield difference.removeprefix(f"{path.name} was ").removesuffix(".")


def _at(origins: Any, place: int) -> Any:
    return origins[place] if place < len(origins) else None
