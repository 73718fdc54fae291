"""The settings of an index: chosen when it is made, the same for all that is added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mesm_core.errors import ConfigError, FeatureError
from mesm_core.extraction.recipe import USUAL_CLIP_LEN
from mesm_core.extraction.settings import Settings
from mesm_core.search.engines import new_state
from mesm_core.search.manifest import Manifest, Network
from mesm_core.search.segments import OVERLAP, SECONDS
from mesm_core.video.scale import Interpolation

MOST_OVERLAP = 0.95


@dataclass(frozen=True)
class Choices:
    """What the user chose; None for nothing.

    ``backbones``: whose features are kept; ``clip_len``: seconds per row; ``interpolation``, ``dtype``: as for
    ``mesm extract``; ``seconds``: of a segment; ``overlap``: share of a segment that the next one repeats; ``engine``:
    its name; ``uri``: where the data of the engine are, if it has a server or a file of its own.

    Raises:
        ConfigError: a value is out of range.
    """

    backbones: tuple[str, ...] | None = None
    clip_len: Fraction | None = None
    interpolation: Interpolation | None = None
    dtype: str | None = None
    seconds: float | None = None
    overlap: float | None = None
    engine: str | None = None
    uri: str | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0.1 <= self.seconds <= 86_400:
            raise ConfigError(f"Segments of {self.seconds:g} seconds: they must have 0.1 to 86,400 seconds.")
        if self.overlap is not None and not 0 <= self.overlap <= MOST_OVERLAP:
            raise ConfigError(f"An overlap of {self.overlap:g}: it must be from 0 to {MOST_OVERLAP:g}.")

    def settings(self, clip_len: float | None) -> Settings:
        """Return the settings with which the videos of a new index are extracted.

        Args:
            clip_len: seconds per row of given features, if known.
        """
        recorded = USUAL_CLIP_LEN if clip_len is None else Fraction(clip_len).limit_denominator(1000)
        return Settings(self.clip_len or recorded, self.interpolation or "bilinear", self.dtype or "float16")

    def manifest(self, networks: Sequence[Network], *, clip_len: float | None) -> Manifest:
        """Return the manifest of a new index.

        Args:
            clip_len: as for ``settings``.

        Raises:
            ConfigError: there is no such engine, or its package is not installed.
        """
        settings, engine = self.settings(clip_len), self.engine or "exact"
        return Manifest(
            networks=tuple(networks),
            clip_len=str(settings.clip_len),
            interpolation=settings.interpolation,
            dtype=settings.dtype,
            seconds=SECONDS if self.seconds is None else self.seconds,
            overlap=OVERLAP if self.overlap is None else self.overlap,
            engine=engine,
            state=new_state(engine, self.uri),
        )

    def refuse_others(self, path: Path, manifest: Manifest) -> None:
        """Raise ConfigError if a choice differs from an existing index at ``path``."""
        pairs: list[tuple[str, Any, Any]] = [
            (
                "--backbone",
                self.backbones and sorted(set(self.backbones)),
                sorted(network.name for network in manifest.networks),
            ),
            ("--clip-len", None if self.clip_len is None else str(self.clip_len), manifest.clip_len),
            ("--interpolation", self.interpolation, manifest.interpolation),
            ("--dtype", self.dtype, manifest.dtype),
            ("--segment", self.seconds, manifest.seconds),
            ("--overlap", self.overlap, manifest.overlap),
            ("--engine", self.engine, manifest.engine),
            ("--uri", self.uri, manifest.state.get("uri")),
        ]
        for option, chosen, present in pairs:
            if chosen is not None and chosen != present:
                raise ConfigError(
                    f"The index {path} was built with {option} {_text(present)}, not {_text(chosen)}.",
                    hint=f"Leave out {option}, or build another index. `mesm index move` changes the engine.",
                )


def refuse_other_networks(path: Path, ours: Sequence[Network], theirs: Sequence[Network], *, what: str) -> None:
    """Raise FeatureError if features of ``what`` were not made by the networks of the index at ``path``.

    Unknown weights are equal to all.
    """
    for one, other in zip(ours, theirs, strict=False):
        weights = one.weights is None or other.weights is None or one.weights == other.weights
        if (one.name, one.width) != (other.name, other.width) or not weights:
            raise FeatureError(
                f"The index {path} has features of {one}; {what} would add features of {other}.",
                hint="Use the same backbone and weights, or build another index.",
            )
    if len(ours) != len(theirs):
        names, others = (" and ".join(network.name for network in each) for each in (ours, theirs))
        raise FeatureError(
            f"The index {path} keeps features of {names}; {what} would add features of {others}.",
            hint="Use the same backbones, or build another index.",
        )


def _text(value: object) -> str:
    if isinstance(value, list):
        return " and ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
