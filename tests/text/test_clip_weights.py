"""CLIP text weights that are forged or damaged: a TextError that names the file, never a failure of torch's."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mesm_core.build.encoders.clip import refuse_other_tokens
from mesm_core.errors import TextError
from mesm_core.text.clip import ClipTextTransformer
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.clip_weights import load_clip_text
from mesm_core.text.vocabulary import read_vocabulary
from tests.text.tiny_towers import hugging_face

BLOCK = "transformer.resblocks.0."


def tower(vocabulary: int = 12, context: int = 6) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = ClipTextTransformer(vocabulary=vocabulary, context=context, width=16, layers=2, heads=2)
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_sound_tower(tmp_path: Path) -> None:
    save_file(tower(), tmp_path / "a.safetensors", metadata={"heads": "4"})
    model = load_clip_text(tmp_path / "a.safetensors", width=16)
    assert (model.vocabulary, model.context, model.layers) == (12, 6, 2)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "about", [{"heads": h} for h in ("0", "3", "-2", "x", "1.5", "9" * 5000, "²")] + [{"activation": "tanh"}]
)
def test_impossible_metadata(tmp_path: Path, about: dict[str, str]) -> None:
    save_file(tower(), tmp_path / "a.safetensors", metadata=about)
    with pytest.raises(TextError, match=r"a\.safetensors"):
        load_clip_text(tmp_path / "a.safetensors")


CHANGES: dict[str, dict[str, Tensor | None]] = {
    "no layers": {name: None for name in tower() if "resblocks" in name},
    "a gap": {name: None for name in tower() if "resblocks.0." in name},
    "a layer far off": {"transformer.resblocks.999999.ln_1.weight": torch.ones(16)},
    "a vector of positions": {"positional_embedding": torch.ones(16)},
    "no positions": {"positional_embedding": torch.ones(0, 16)},
    "tokens of another width": {"token_embedding.weight": torch.ones(12, 8)},
    "a scalar of tokens": {"token_embedding.weight": torch.tensor(1.0)},
    "another shape": {BLOCK + "attn.in_proj_weight": torch.ones(3, 3)},
    "a missing part": {BLOCK + "ln_1.bias": None},
    "NaN": {BLOCK + "ln_1.bias": torch.full((16,), math.nan)},
    "complex": {BLOCK + "ln_1.bias": torch.ones(16, dtype=torch.complex64)},
    "claims more": {"positional_embedding": torch.zeros(1).expand(10**6, 10**6)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_impossible_towers(tmp_path: Path, name: str) -> None:
    weights = {key: value for key, value in (tower() | CHANGES[name]).items() if value is not None}
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(TextError, match=r"a\.pt"):
        load_clip_text(tmp_path / "a.pt")


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj"])
@pytest.mark.parametrize("value", [None, torch.tensor(1.0)], ids=["missing", "scalar"])
def test_hugging_face_without_a_part(tmp_path: Path, part: str, value: Tensor | None) -> None:
    weights = hugging_face(tower())
    name = next(key for key in weights if f"layers.0.self_attn.{part}.weight" in key)
    del weights[name]
    save_file(weights | ({} if value is None else {name: value}), tmp_path / "a.safetensors")
    with pytest.raises(TextError):
        load_clip_text(tmp_path / "a.safetensors")


def test_other_tokenizers_and_short_contexts() -> None:
    tokenizer = ClipTokenizer()
    with torch.device("meta"):
        few, short, fits = (
            ClipTextTransformer(vocabulary=tokens, context=context, width=16, layers=1, heads=2)
            for tokens, context in ((100, 77), (49408, 7), (49408, 8))
        )
    for model, expected in ((few, "has 100 tokens"), (short, "reads 7 tokens")):
        with pytest.raises(TextError, match=expected):
            refuse_other_tokens(model, tokenizer, 8, Path("a.pt"))
    refuse_other_tokens(fits, tokenizer, 8, Path("a.pt"))


class _Storage:
    def __init__(self, key: str) -> None:
        self.key = key


class _Tensor:
    def __init__(self, *claims: Any) -> None:
        self.claims = claims

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (_Storage("0"), *self.claims, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.FloatStorage, value.key, "cpu", 8) if isinstance(value, _Storage) else None


@pytest.mark.parametrize(
    ("claims", "entry"),
    [
        ((0, (100, 16), (16, 1)), "data/0"),
        ((4, (2, 4), (4, 1)), "data/0"),
        ((-1, (2, 4), (4, 1)), "data/0"),
        ((0, (2, 4), (-4, 1)), "data/0"),
        ((0, (10**9, 10**3), (0, 0)), "data/0"),
        ((0, (10**30, 2), (1, 1)), "data/0"),
        ((0, "ab", (4, 1)), "data/0"),
        ((0, (2, 4), (4, 1)), "data/1"),
    ],
)
def test_archives_whose_tensors_reach_out(tmp_path: Path, claims: tuple[Any, ...], entry: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive, archive.open("a/data.pkl", "w") as file:
        _Pickler(file, protocol=2).dump(_Tensor(*claims))
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr(f"a/{entry}", bytes(32))
    with pytest.raises(TextError):
        load_clip_text(tmp_path / "a.pt")


def test_an_archive_that_grows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/constants.pkl", "a/data.pkl", "a/data/0"):
            archive.writestr(name, bytes(10**6))
    with pytest.raises(TextError, match="more than the file itself"):
        load_clip_text(tmp_path / "a.pt")


@pytest.mark.parametrize("word", ["\ud800", "a\0b", 3, ""])
def test_odd_words_in_a_pickle(tmp_path: Path, word: Any) -> None:
    content = {"w2id": {"he": 1, word: 2}, "id2vec": {1: [1.0], 2: [2.0]}, "counter": {"he": 1, word: 1}}
    (tmp_path / "glove.pkl").write_bytes(pickle.dumps(content))
    if word == "":
        assert len(read_vocabulary(tmp_path / "glove.pkl").words) == 2
        return
    with pytest.raises(TextError, match=r"glove\.pkl"):
        read_vocabulary(tmp_path / "glove.pkl")
