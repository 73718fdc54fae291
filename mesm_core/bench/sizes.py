"""Random data of the same size as a dataset: the same numbers of videos, queries, frames and words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.arrays import normalise
from mesm_core.build import build_framing
from mesm_core.config.schema import Config
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.features import with_endpoints
from mesm_core.text.encoder import text_features
from mesm_core.types import Query, TextFeatures, Words

QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
POOL = 4096
DEFAULT_RATE = 0.7


@dataclass(frozen=True)
class Size:
    """Size of a training split.

    ``seconds`` and ``share``: duration of videos, and moment length over duration, at ``QUANTILES``; ``words``:
    minimum, median and maximum number of words per query.
    """

    videos: int
    queries: int
    seconds: tuple[float, ...]
    share: tuple[float, ...]
    words: tuple[int, int, int]


# Counted from the published annotations (train splits).
_CHARADES = Size(
    5336, 12405, (5.5, 21.9, 27.9, 30.7, 32.5, 37.8, 194.3), (0.05, 0.15, 0.2, 0.25, 0.33, 0.42, 0.9), (5, 7, 10)
)
SIZES: dict[str, Size] = {
    "tacos": Size(
        75,
        9790,
        (51.5, 77.6, 104.4, 158.7, 242.0, 423.7, 1402.2),
        (0.005, 0.017, 0.03, 0.062, 0.12, 0.242, 0.9),
        (4, 8, 16),
    ),
    "charades": _CHARADES,
    "charades-vgg-glove": _CHARADES,
    "charades-cd": Size(4564, 11071, _CHARADES.seconds, _CHARADES.share, (4, 6, 9)),
    "charades-cg": Size(3555, 8281, _CHARADES.seconds, _CHARADES.share, (5, 7, 10)),
    "qvhighlights": Size(
        7100, 7218, (120, 150, 150, 150, 150, 150, 150), (0.02, 0.053, 0.09, 0.16, 0.3, 0.493, 1.0), (7, 11, 16)
    ),
}


class InventedText:
    """A text encoder with random word vectors, which depend only on the number of words."""

    def __init__(self, config: Config) -> None:
        rng = np.random.default_rng(0)
        self._vectors = rng.normal(size=(config.dataset.max_words, config.model.text_dim)).astype(np.float32)
        self._most = config.dataset.max_words
        self.classes = config.text.classes

    def features(self, sentence: str) -> TextFeatures:
        """Return one vector for each word of the sentence."""
        return text_features(self._vectors[: len(sentence.split()[: self._most])])

    def words(self, sentence: str) -> Words:
        """Return the words of a sentence; every second word has weight 2."""
        tokens = tuple(sentence.split()[: self._most])
        numbers = np.arange(len(tokens))
        return Words(tokens, numbers % self.classes, np.zeros(len(tokens), np.bool_), 1 + numbers % 2)

    def prepare(self, sentences: Iterable[str], progress: Callable[[int], None] | None = None) -> None:
        """Do nothing."""

    def known_words(self, sentence: str) -> dict[str, bool]:
        """Return an empty dict: no word is unknown."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """Return an empty dict: the encoder is never saved."""
        return {}


class InventedFeatures:
    """Random frames; the number of frames of a video fits its duration."""

    def __init__(self, config: Config, durations: Mapping[str, float]) -> None:
        rng = np.random.default_rng(0)
        self.paths: tuple[Path, ...] = ()
        self._pool = normalise(rng.normal(size=(POOL, config.model.video_dim))).astype(config.data.keep_as)
        rate = 1 / config.dataset.clip_len if config.dataset.clip_len > 0 else DEFAULT_RATE
        most = config.dataset.max_frames
        self._lengths = {vid: int(np.clip(round(s * rate), 1, most)) for vid, s in durations.items()}
        self._first = {vid: int(rng.integers(POOL - length)) for vid, length in self._lengths.items()}

    def get(self, vid: str) -> np.ndarray:
        """Return the video's frames (L, dim + 2) float32."""
        return with_endpoints(self.frames(vid))

    def frames(self, vid: str) -> np.ndarray:
        """Return the video's frames (L, dim) in ``data.keep_as``, without the endpoint channels."""
        first = self._first[vid]
        return self._pool[first : first + self._lengths[vid]]


def invented_dataset(config: Config, *, seed: int = 0) -> tuple[MomentDataset, InventedText]:
    """Return a random dataset of the size of the training split, and its text encoder."""
    size = SIZES.get(config.dataset.name, SIZES["charades"])
    rng = np.random.default_rng(seed)
    durations = np.interp(rng.random(size.videos), QUANTILES, size.seconds)
    names = [f"v{number}" for number in range(size.videos)]
    owners = np.concatenate([np.arange(size.videos), rng.integers(size.videos, size=size.queries - size.videos)])
    queries = []
    for number, owner in enumerate(owners.tolist()):
        duration = float(durations[owner])
        length = duration * float(np.interp(rng.random(), QUANTILES, size.share))
        start = float(rng.uniform(0, duration - length))
        words = round(float(np.interp(rng.random(), (0, 0.5, 1), size.words)))
        queries.append(Query(number, names[owner], " ".join(["w"] * words), duration, ((start, start + length),)))
    text = InventedText(config)
    features = InventedFeatures(config, dict(zip(names, durations.tolist(), strict=True)))
    data = MomentDataset(
        queries,
        text=text,
        features=features,  # type: ignore[arg-type]
        framing=build_framing(config),
        max_gather_size=config.dataset.max_gather_size,
        absent=config.loss.absent > 0,
    )
    return data, text
