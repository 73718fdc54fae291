"""The losses of the two semantic enhancements equal slow implementations, in values and in gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from mesm_core.data.collate import moment_overlap
from mesm_core.losses.reconstruction import segment_sentence_loss, word_loss

Vector = list[float]


def slow_word_loss(logits: list[list[Vector]], labels: list[list[int]], lengths: list[int]) -> float:
    """Compute ``loss_rec_fw`` of docs/model.md word by word; a query's words after its length are padding."""
    queries = []
    for rows, targets, length in zip(logits, labels, lengths, strict=True):
        total = 0.0
        for row, target in zip(rows[:length], targets[:length], strict=True):
            normaliser = math.log(sum(math.exp(value) for value in row))
            log_p = [value - normaliser for value in row]
            total += (1 - 0.1) * -log_p[target] + 0.1 / len(row) * -sum(log_p)
        queries.append(total / max(length, 1))
    return sum(queries) / len(queries)


def cosine(a: Vector, b: Vector) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def giou(a: Vector, b: Vector) -> float:
    inner = max(min(a[1], b[1]) - max(a[0], b[0]), 0.0)
    union = (a[1] - a[0]) + (b[1] - b[0]) - inner
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return inner / union - (hull - union) / hull


def slow_segment_sentence_loss(
    segments: list[Vector], texts: list[Vector], windows: list[Vector], group: list[int], gamma: float, tau: float
) -> float:
    """Compute ``loss_rec_ss`` of docs/model.md pair by pair."""
    queries = []
    for i, segment in enumerate(segments):
        scores = [cosine(segment, text) / tau for text in texts]
        highest = max(scores)
        normaliser = math.log(sum(math.exp(score - highest) for score in scores) + 1e-6)
        positives = [j for j in range(len(texts)) if group[j] == group[i] and giou(windows[i], windows[j]) >= gamma]
        total = sum(scores[j] - highest - normaliser for j in positives)
        queries.append(-total / (len(positives) + 1e-6))
    return sum(queries) / len(queries)


def drawn_words(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Return logits (Q, W, classes) float64, labels (Q, W), mask (Q, W) and the lengths of the queries."""
    queries, words, classes = (int(rng.integers(low, high)) for low, high in ((1, 5), (1, 7), (2, 8)))
    lengths = [int(n) for n in rng.integers(0, words + 1, queries)]
    logits = torch.from_numpy(rng.normal(scale=3, size=(queries, words, classes)))
    labels = torch.from_numpy(rng.integers(0, classes, (queries, words)))
    return logits, labels, torch.arange(words) < torch.tensor(lengths).unsqueeze(1), lengths


def drawn_moments(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return segments and texts (Q, d), windows (Q, 2), all float64, and groups (Q,)."""
    queries, width = int(rng.integers(1, 9)), int(rng.integers(2, 6))
    segments, texts = (torch.from_numpy(rng.normal(size=(queries, width))) for _ in range(2))
    start = rng.uniform(0, 0.6, queries)
    windows = torch.from_numpy(np.stack([start, start + rng.uniform(0.05, 0.4, queries)], axis=1))
    return segments, texts, windows, torch.from_numpy(rng.integers(0, 3, queries))


def overlap_of(windows: Tensor, group: Tensor) -> Tensor:
    """Return ``Targets.overlap`` of queries with one window each."""
    spans = torch.stack([windows.mean(dim=1), windows[:, 1] - windows[:, 0]], dim=-1).unsqueeze(1).numpy()
    return torch.from_numpy(moment_overlap(spans, np.ones((len(spans), 1), np.bool_), group.numpy()))


@pytest.mark.parametrize("seed", range(20))
def test_word_loss_equals_a_loop_over_words(seed: int) -> None:
    logits, labels, mask, lengths = drawn_words(np.random.default_rng(seed))
    expected = slow_word_loss(logits.tolist(), labels.tolist(), lengths)
    assert word_loss(logits, labels, mask).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_segment_sentence_loss_equals_a_loop_over_pairs(seed: int) -> None:
    segments, texts, windows, group = drawn_moments(np.random.default_rng(seed))
    for gamma in (-1.0, 0.1, 0.5, 0.9):
        arguments = (segments.tolist(), texts.tolist(), windows.tolist(), group.tolist())
        expected = slow_segment_sentence_loss(*arguments, gamma, 0.5)
        loss = segment_sentence_loss(segments, texts, overlap_of(windows, group), gamma=gamma, tau=0.5)
        assert loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_drawn_moments_have_several_positives_and_negatives() -> None:
    """Without both, the comparison above would not see which pairs count."""
    seen: set[tuple[bool, bool]] = set()
    for seed in range(20):
        _, _, windows, group = drawn_moments(np.random.default_rng(seed))
        pairs = [(i, j) for i in range(len(group)) for j in range(len(group)) if i != j]
        seen |= {(bool(group[i] == group[j]), giou(windows[i].tolist(), windows[j].tolist()) >= 0.5) for i, j in pairs}
    assert seen == {(same, near) for same in (False, True) for near in (False, True)}


@pytest.mark.parametrize("seed", range(5))
def test_gradients_equal_differences_of_the_slow_losses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels, mask, lengths = drawn_words(rng)
    logits.requires_grad_()
    assert gradcheck(lambda x: word_loss(x, labels, mask), logits)
    word_loss(logits, labels, mask).backward()
    assert logits.grad is not None
    slow = differences(logits.detach(), lambda x: slow_word_loss(x.tolist(), labels.tolist(), lengths))
    assert torch.allclose(logits.grad, slow, atol=1e-7)

    segments, texts, windows, group = drawn_moments(rng)
    for moved in (segments, texts):
        moved.requires_grad_()
    segment_sentence_loss(segments, texts, overlap_of(windows, group), gamma=0.3, tau=0.5).backward()
    fixed = (windows.tolist(), group.tolist(), 0.3, 0.5)
    a, b = segments.detach(), texts.detach()
    assert segments.grad is not None
    assert texts.grad is not None
    by_segment = differences(a, lambda x: slow_segment_sentence_loss(x.tolist(), b.tolist(), *fixed))
    by_text = differences(b, lambda x: slow_segment_sentence_loss(a.tolist(), x.tolist(), *fixed))
    # The loss treats the subtracted maximum as a constant, which the 1e-6 in the logarithm makes visible.
    assert torch.allclose(segments.grad, by_segment, atol=1e-5)
    assert torch.allclose(texts.grad, by_text, atol=1e-5)


def differences(x: Tensor, function, step: float = 1e-5) -> Tensor:
    """Return the central differences of a function of ``x``, in the shape of ``x``."""
    gradient = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        high, low = x.clone(), x.clone()
        high[index] += step
        low[index] -= step
        gradient[index] = (function(high) - function(low)) / (2 * step)
    return gradient
