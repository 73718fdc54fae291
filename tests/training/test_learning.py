"""A model learns a planted problem: frames that look like the query's word are its moment."""

from __future__ import annotations

import numpy as np
import torch

from mesm_core.build import build_criterion, build_model
from mesm_core.data.collate import Framing, Item, collate
from mesm_core.losses.spans import to_windows
from mesm_core.types import Batch, Query, TextFeatures, Words
from tests.conftest import small_config

FRAMES, SECONDS, VIDEO_WIDTH, TEXT_WIDTH, VOCABULARY = 16, 32.0, 12, 8, 4
STEPS, VIDEOS, LEARNING_RATE, GRAD_CLIP = 150, 24, 4e-3, 1.0
SETTINGS = (
    "model.hidden_dim=32",
    "model.dim_feedforward=64",
    "model.frame_word_layers=1",
    "model.encoder_layers=1",
    "model.projection_layers=1",
    "model.dropout=0",
    "model.input_dropout=0",
)


def planted(rng: np.random.Generator, videos: int, vectors: np.ndarray, projection: np.ndarray) -> Batch:
    """Return a batch of videos in which one word is shown before a cut and another one after it, with two queries each.

    A frame is the projection of the vector of its word, with noise. Frames outside both moments are noise.
    """
    groups, features = [], {}
    for number in range(videos):
        vid = f"v{number}"
        first, second = rng.choice(VOCABULARY, 2, replace=False)
        cut = int(rng.integers(4, FRAMES - 3))
        bounds = {first: (int(rng.integers(0, cut - 2)), cut), second: (cut, int(rng.integers(cut + 3, FRAMES + 1)))}
        video = rng.normal(scale=0.1, size=(FRAMES, VIDEO_WIDTH + 2)).astype(np.float32)
        items = []
        for word, (start, end) in bounds.items():
            video[start:end, :VIDEO_WIDTH] += vectors[word] @ projection
            window = (start * SECONDS / FRAMES, end * SECONDS / FRAMES)
            text = np.stack([vectors[word], vectors[-1]]).astype(np.float32)
            labels = np.array([word, VOCABULARY])
            words = Words(("word", "end"), labels, np.zeros(2, np.bool_), np.array([2, 0]))
            items.append(Item(Query(None, vid, "word end", SECONDS, (window,)), TextFeatures(text), words))
        video[:, VIDEO_WIDTH] = np.arange(FRAMES) / FRAMES
        video[:, VIDEO_WIDTH + 1] = np.arange(1, FRAMES + 1) / FRAMES
        features[vid] = video
        groups.append(items)
    return collate(groups, features, framing=Framing(), rng=rng)


def orthogonal(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a random orthogonal matrix, so that the words are equally unlike each other."""
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def hits(windows: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the share of (Q, 2) windows that overlap the true ones with an IoU of at least 0.5."""
    inner = (torch.minimum(windows[:, 1], truth[:, 1]) - torch.maximum(windows[:, 0], truth[:, 0])).clamp(min=0)
    union = (windows[:, 1] - windows[:, 0]) + (truth[:, 1] - truth[:, 0]) - inner
    return (inner / union >= 0.5).double().mean().item()


def found(model: torch.nn.Module, batch: Batch) -> tuple[float, float]:
    """Return the shares of queries whose best moment has its center in the true one, and overlaps it (``hits``)."""
    assert batch.targets is not None
    truth = to_windows(batch.targets.spans[:, 0])
    model.eval()
    with torch.inference_mode():
        output = model(batch.inputs)
    best = output.logits[-1].softmax(dim=-1)[..., 0].argmax(dim=1)
    spans = output.spans[-1][torch.arange(len(best)), best]
    centered = (spans[:, 0] >= truth[:, 0]) & (spans[:, 0] <= truth[:, 1])
    return centered.double().mean().item(), hits(to_windows(spans), truth)


def learn(seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Train a model and return what it finds in new videos, before and after."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vectors = orthogonal(rng, TEXT_WIDTH)[: VOCABULARY + 1] * TEXT_WIDTH**0.5
    projection = orthogonal(rng, VIDEO_WIDTH)[:TEXT_WIDTH]
    config = small_config(*SETTINGS)
    model = build_model(config.model, classes=VOCABULARY + 1, max_words=2)
    criterion = build_criterion(config.loss, config.model)
    test = planted(rng, 100, vectors, projection)
    untrained = found(model, test)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=STEPS, pct_start=0.2, cycle_momentum=False
    )
    for _ in range(STEPS):
        batch = planted(rng, VIDEOS, vectors, projection)
        assert batch.targets is not None
        model.train()
        loss = criterion.total(criterion(model(batch.inputs, batch.targets), batch.inputs, batch.targets))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        optimiser.step()
        schedule.step()
    return untrained, found(model, test)


def test_a_model_learns_to_find_the_frames_of_a_word() -> None:
    """A model that ignores the words puts the center into one of a video's two moments: at most 0.5."""
    (_, overlap_before), (centered, overlap) = learn(seed=0)
    assert centered >= 0.7
    assert overlap >= overlap_before + 0.2
