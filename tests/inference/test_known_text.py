"""Cached sentences need no weights, and published checkpoints no count file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mesm_core.build import Paths, build_sentences, build_text_to_ask
from mesm_core.checkpoint import Checkpoint
from mesm_core.config.load import load_config
from mesm_core.errors import TextError
from mesm_core.inference.trained import text_file
from mesm_core.text.cache import TextCache
from mesm_core.text.kept_sentences import KeptSentences
from tests.tiny_clip import OUT, write_clip
from tests.video.made import aged

CPU = torch.device("cpu")
CONFIG = load_config("charades", overrides=["model.text_dim=16"])


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was known already")


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    return aged(write_clip(tmp_path / "clip.pt"))


def test_the_text_tower_of_a_checkpoint_is_built_when_needed(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path, (), clip)
    first = build_text_to_ask(CONFIG, paths, device=CPU)
    known = first.features("he cuts bread").words
    assert first.classes == CONFIG.text.label_words + 3
    monkeypatch.setattr("mesm_core.build.encoders.clip.load_clip_text", never)
    again = build_text_to_ask(CONFIG, paths, device=CPU)
    assert np.array_equal(again.features("he cuts bread").words, known)
    assert again.state()["hash"] == first.state()["hash"]
    with pytest.raises(AssertionError):
        again.features("she sits down")
    monkeypatch.undo()
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(TextError, match=r"16 wide, but model\.text_dim is 512"):
        build_text_to_ask(load_config("charades"), paths, device=CPU)


def test_cached_joint_embeddings_are_the_same(clip: Path, tmp_path: Path) -> None:
    cache = TextCache(tmp_path / "text.sqlite")
    encoder = build_sentences(clip, device=CPU)
    first = KeptSentences(lambda: encoder, cache=cache, known=None)
    sentences = ["he cuts bread", "she sits down", "he cuts bread"]
    fresh = first.embed(sentences)
    again = KeptSentences(never, cache=cache, known=first.about).embed(sentences)
    assert fresh.shape == (3, OUT)
    assert np.array_equal(fresh, again)
    assert np.allclose(fresh, encoder.embed(sentences), atol=1e-3)
    assert np.allclose(np.linalg.norm(fresh, axis=1), 1, atol=1e-3)
    other = build_sentences(write_clip(tmp_path / "other.pt", seed=1), device=CPU)
    assert other.weights_hash != encoder.weights_hash
    with pytest.raises(TextError, match="empty"):
        first.embed([" "])


def checkpoint(text: dict[str, Any], preset: str = "charades") -> Checkpoint:
    config = load_config(preset).model_dump(mode="json")
    return Checkpoint(config=config, model={}, text=text, paths={}, epoch=1, metrics={})


def test_search_order_of_a_checkpoints_text_weights(clip: Path, tmp_path: Path) -> None:
    recorded = checkpoint({"path": str(clip), "hash": "x"})
    moved = checkpoint({"path": str(tmp_path / "gone.pt"), "hash": "x"})
    assert text_file(recorded, None, tmp_path) == (clip, False)
    assert text_file(recorded, Path("given.pt"), tmp_path) == (Path("given.pt"), False)
    assert text_file(moved, None, tmp_path) == (None, True)
    assert text_file(checkpoint({}), None, tmp_path) == (None, True)
    assert text_file(checkpoint({"words": ["he"]}, "tacos"), None, tmp_path) == (None, False)
    (tmp_path / CONFIG.text.clip).write_bytes(b"")
    assert text_file(checkpoint({}), None, tmp_path) == (tmp_path / CONFIG.text.clip, False)
