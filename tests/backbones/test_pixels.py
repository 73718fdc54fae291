"""The backbone ``pixels``, which needs no weights."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mesm_core.backbones.pixels import Pixels
from mesm_core.backbones.protocol import VideoInfo


def _features(pictures: list[np.ndarray]) -> np.ndarray:
    pixels = Pixels()
    sampler = pixels.sampler(Fraction(1), VideoInfo(25.0))
    return pixels.encode(np.stack([sample for picture in pictures for sample in sampler.push(picture)]))


def test_features_are_fixed_and_distinguish_pictures() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (224, 224, 3), np.uint8) for _ in range(3)]
    first, again = _features(pictures), _features(pictures)
    assert first.shape == (3, Pixels.width)
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    red, blue = np.zeros((2, 224, 224, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 200
    assert np.abs(np.subtract(*_features([red, blue]))).max() > 0.05


def test_features_depend_on_changes() -> None:
    still, other = np.zeros((224, 224, 3), np.uint8), np.full((224, 224, 3), 90, np.uint8)
    assert not np.allclose(_features([other, still])[1], _features([still, still])[1])


def test_features_do_not_depend_on_the_batch() -> None:
    samples = np.random.default_rng(1).integers(0, 256, (4, 2, 224, 224, 3), np.uint8)
    pixels = Pixels()
    alone = np.concatenate([pixels.encode(samples[i : i + 1]) for i in range(4)])
    assert np.allclose(pixels.encode(samples), alone, atol=1e-6)


def test_features_are_not_dominated_by_a_common_mean() -> None:
    """Cells of plain colours with little noise, without change between rows."""
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(8):
        cells = rng.integers(20, 200, (7, 7, 3)).repeat(32, axis=0).repeat(32, axis=1)
        picture = np.clip(cells + rng.normal(0, 10, cells.shape), 0, 255).astype(np.uint8)
        samples.append(np.stack([picture, picture]))
    features = Pixels().encode(np.stack(samples))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    assert np.square(features.mean(axis=0)).sum() < 0.5
