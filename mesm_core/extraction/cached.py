"""Gets the features of videos from the cache, without torch, or extracts and caches them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mesm_core.backbones.protocol import Backbone, Precision
from mesm_core.backbones.registry import build_backbone
from mesm_core.caches import FileNotes, identity_of
from mesm_core.config.backbones import BACKBONES
from mesm_core.errors import FeatureError, MesmError
from mesm_core.extraction.cache import FeatureCache
from mesm_core.extraction.pipeline import Extracted, Failed, Frames, extract
from mesm_core.extraction.recipe import Recipe
from mesm_core.extraction.settings import About, Settings
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.work import check_rows, damage_warning

Part = tuple[np.ndarray, float, str]
"""Features of one backbone, the video's duration in seconds, and a warning if part of the video was lost."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a backbone's features, without the backbone."""

    name: str
    weights_hash: str


@dataclass(frozen=True, slots=True)
class Featured:
    """A video's features.

    ``features``: one (rows, width) array per backbone of the recipe; ``duration``: of the video, in seconds;
    ``warning``: what was lost of a damaged video, or empty; ``cached``: True if nothing was decoded;
    ``cache_error``: why the features could not be cached, or empty.
    """

    video: VideoFile
    features: tuple[np.ndarray, ...]
    duration: float
    warning: str = ""
    cached: bool = False
    cache_error: str = ""


class CachedExtraction:
    """Extracts features that are not in the cache; networks are built when first needed.

    Args:
        recipe: how features are extracted; weights: weights file of each backbone, None if it needs none.
        device: auto, cpu, cuda or cuda:N; precision: of the networks, None for the device's default.
        cache: cache of features; notes: remembered hashes of files.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        weights: Mapping[str, Path | None],
        device: str,
        precision: Precision | None,
        cache: FeatureCache,
        notes: FileNotes,
        batch_size: int = 16,
        decoders: int = 2,
    ) -> None:
        self.recipe = recipe
        self._weights = weights
        self._device = device
        self._precision = precision
        self._cache, self._notes = cache, notes
        self._batch_size, self._decoders = batch_size, decoders
        self._built: dict[str, Backbone] = {}
        self._identities: dict[str, Identity] = {}

    def check_weights(self) -> None:
        """Check that the weights match the recipe, before a video is opened.

        Raises:
            FeatureError: the weights differ or cannot be read.
        """
        for name, wanted in zip(self.recipe.backbones, self.recipe.weights, strict=True):
            found = self.weights_hash(name)
            if wanted is not None and found != wanted:
                where = f" in {self._weights[name]}" if self._weights.get(name) else ""
                raise FeatureError(
                    f"The weights of {name}{where} ({found[:12]}) differ from those of the features that the "
                    f"model was trained on ({wanted[:12]}).",
                    hint=f"Give the same weights: --weights {name}=FILE. With other features the answers are wrong.",
                )

    def weights_hash(self, name: str) -> str:
        """Return the hash of a backbone's weights; the network is built only if the file is not known.

        Raises:
            FeatureError: the weights cannot be read.
        """
        return self._identity(name).weights_hash

    def cached(self, video: VideoFile, content: str) -> Featured | None:
        """Return the features of a video if the cache has them all, else None. Nothing is decoded.

        Args:
            content: the hash of the file's content.
        """
        parts = self._cached_parts(content)
        return self._featured(video, parts, cached=True) if len(parts) == len(set(self.recipe.backbones)) else None

    def is_cached(self, content: str) -> bool:
        """Return whether the cache has all features of a video, without reading them.

        Args:
            content: the hash of the file's content.
        """
        keys = [
            [self._settings(precision).key(self._identity(name), content) for precision in self._precisions()]
            for name in dict.fromkeys(self.recipe.backbones)
        ]
        return all(any(map(self._cache.has, same)) for same in keys)

    def run(self, videos: Sequence[VideoFile]) -> Iterator[Featured | Failed | Frames]:
        """Yield the features of each video in order, or why it has none; in between, the progress of decoding.

        Raises:
            FeatureError: a backbone cannot be built.
        """
        self.check_weights()
        done: dict[int, Featured | Failed] = {}
        missing: dict[int, dict[str, Part]] = {}
        contents: dict[int, str] = {}
        next_number = 0
        for number, video in enumerate(videos):
            try:
                contents[number] = self._notes.content_hash(video.path, what="video")
            except MesmError as error:
                done[number] = Failed(video, str(error))
            else:
                parts = self._cached_parts(contents[number])
                if len(parts) == len(set(self.recipe.backbones)):
                    done[number] = self._featured(video, parts, cached=True)
                else:
                    missing[number] = parts
            while next_number in done:
                yield done.pop(next_number)
                next_number += 1
        for event in self._extract(videos, missing, contents, done):
            if event is not None:
                yield event
            while next_number in done:
                yield done.pop(next_number)
                next_number += 1

    def _extract(
        self,
        videos: Sequence[VideoFile],
        missing: Mapping[int, dict[str, Part]],
        contents: Mapping[int, str],
        done: dict[int, Featured | Failed],
    ) -> Iterator[Frames | None]:
        """Add extracted features to ``done``."""
        if not missing:
            return
        settings = self._settings()
        backbones = {name: self._backbone(name) for name in self.recipe.backbones}
        check_rows(list(backbones.values()), settings)
        numbers = {videos[number]: number for number in missing}
        wanted = [[backbones[n] for n in backbones if n not in parts] for parts in missing.values()]
        events = extract(list(numbers), wanted, settings=settings, batch_size=self._batch_size, decoders=self._decoders)
        for event in events:
            if isinstance(event, Frames):
                yield event
                continue
            number = numbers[event.video]
            if isinstance(event, Failed):
                done[number] = event
            else:
                done[number] = self._store(event, missing[number], contents[number], settings)
            yield None

    def _store(self, event: Extracted, parts: dict[str, Part], content: str, settings: Settings) -> Featured | Failed:
        video, decoding = event.video, event.decoding
        warning, cache_error = damage_warning(decoding, float(settings.clip_len)), ""
        about = About(float(decoding.end), video.path.name, content, decoding.frames, decoding.skipped_packets)
        for name, features in event.features.items():
            try:
                stored = settings.stored(features)
            except FeatureError as error:
                return Failed(video, f"{video.path}: {error}", content)
            parts[name] = (stored, about.duration, warning)
            try:
                key = settings.key(self._identity(name), content)
                self._cache.write(key, stored, about.as_json() | {"warning": warning})
            except MesmError as error:
                cache_error = str(error)
        return self._featured(video, parts, cache_error=cache_error)

    def _featured(
        self, video: VideoFile, parts: Mapping[str, Part], *, cached: bool = False, cache_error: str = ""
    ) -> Featured:
        _, duration, warning = parts[self.recipe.backbones[0]]
        features = tuple(parts[name][0] for name in self.recipe.backbones)
        return Featured(video, features, duration, warning, cached, cache_error)

    def _cached_parts(self, content: str) -> dict[str, Part]:
        """Return the parts of a video that are in the cache."""
        parts: dict[str, Part] = {}
        for name in dict.fromkeys(self.recipe.backbones):
            for precision in self._precisions():
                found = self._cache.read(self._settings(precision).key(self._identity(name), content))
                if found is not None and found[0].shape[1] == BACKBONES[name].width:
                    parts[name] = (found[0], float(found[1]["duration"]), str(found[1].get("warning", "")))
                    break
        return parts

    def _precisions(self) -> Sequence[Precision]:
        """Return the acceptable precisions; without torch, the default of ``auto`` is unknown."""
        if self._precision is not None:
            return [self._precision]
        return ["fp32"] if self._device == "cpu" else ["fp16"] if self._device != "auto" else ["fp16", "fp32"]

    def _settings(self, precision: Precision | None = None) -> Settings:
        if precision is None:
            from mesm_core.backbones.networks import default_precision
            from mesm_core.devices import build_device

            precision = self._precision or default_precision(build_device(self._device))
        return Settings(self.recipe.clip_len, self.recipe.interpolation, precision=precision)

    def _identity(self, name: str) -> Identity:
        if name not in self._identities:
            path, what = self._weights.get(name), f"weights of {name}"
            noted = None if path is None else self._notes.get(path, what)
            seen = None if path is None else identity_of(path)
            self._identities[name] = Identity(
                name, noted if isinstance(noted, str) else self._backbone(name).weights_hash
            )
            if path is not None and noted is None:
                self._notes.put(path, what, self._identities[name].weights_hash, seen=seen)
        return self._identities[name]

    def _backbone(self, name: str) -> Backbone:
        if name not in self._built:
            from mesm_core.devices import build_device

            device = build_device(self._device)
            self._built[name] = build_backbone(
                name, weights=self._weights.get(name), device=device, precision=self._precision
            )
        return self._built[name]
