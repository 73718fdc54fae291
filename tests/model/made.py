"""Tiny models and batches."""

from __future__ import annotations

import numpy as np
import torch

from mesm_core.build import build_model
from mesm_core.data.collate import Framing, Item, collate
from mesm_core.model.mesm import Mesm
from mesm_core.types import Batch, Query, TextFeatures, Words
from tests.conftest import small_config

DIM, TEXT = 12, 8


def make_item(rng: np.random.Generator, vid: str, words: int, window: tuple[float, float] = (2.0, 5.0)) -> Item:
    """Return a query of random words about a video."""
    vectors = rng.normal(size=(words, TEXT)).astype(np.float32)
    text = TextFeatures(vectors)
    labels = rng.integers(0, 15, words)
    known = Words(("w",) * words, labels, np.zeros(words, np.bool_), np.ones(words, np.int64))
    return Item(Query(1, vid, "w " * words, 10.0, (window,)), text, known)


def make_batch(
    groups: list[list[tuple[str, int]]], *, train: bool = False, windows: tuple[float, float] = (2.0, 5.0)
) -> Batch:
    """Return a batch of groups of (video, words) over the videos a, b and c, of 7, 12 and 1 frames."""
    rng = np.random.default_rng(3)
    items = [[make_item(rng, vid, words, windows) for vid, words in group] for group in groups]
    lengths = {"a": 7, "b": 12, "c": 1}
    videos = {
        vid: np.random.default_rng(ord(vid)).normal(size=(lengths[vid], DIM + 2)).astype(np.float32)
        for vid in dict.fromkeys(item.query.vid for group in items for item in group)
    }
    return collate(items, videos, framing=Framing(), rng=rng if train else None)


def make_model(**overrides: object) -> Mesm:
    """Return a tiny model with settings changed, in evaluation."""
    torch.manual_seed(0)
    config = small_config(*(f"model.{key}={str(value).lower()}" for key, value in overrides.items()))
    return build_model(config.model, classes=16, max_words=16).eval()


VARIANTS = [
    {},
    {"frame_word": False},
    {"segment_sentence": False},
    {"text_positions": True},
    {"share_feedforward": True},
    {"text_positions": True, "segment_sentence": False},
]
