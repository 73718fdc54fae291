"""The text projection: kept by every way in, used by zero-shot alone, and without a trace in the text encoder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mesm_core.build import build_sentences
from mesm_core.errors import TextError
from mesm_core.model.weights import hash_weights
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.clip_joint import ClipSentences
from mesm_core.text.clip_weights import PROJECTION, load_clip_joint, load_clip_text, read_clip_weights, write_clip_text
from tests.text.tiny_towers import WIDTH, Scripted, hugging_face, tiny

OUT = 6
JOINT = torch.randn(WIDTH, OUT, generator=torch.Generator().manual_seed(0))


class Projecting(Scripted):
    """OpenAI's archive with its text projection."""

    def __init__(self) -> None:
        super().__init__(tiny())
        self.text_projection = torch.nn.Parameter(JOINT)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ self.text_projection


def source(kind: str, folder: Path) -> Path:
    """Write a CLIP model with its projection as its publishers do; they write (width, out) or (out, width)."""
    weights = {name: value.detach().clone() for name, value in tiny().state_dict().items()}
    path = folder / f"{kind}.safetensors"
    linear = JOINT.T.contiguous()
    if kind == "openai":
        path = folder / "ViT-B-32.pt"
        with torch.no_grad():
            torch.jit.trace(Projecting(), torch.zeros(1, 2, dtype=torch.int64)).save(str(path))
    elif kind == "hugging_face":
        save_file(hugging_face(weights) | {"text_projection.weight": linear}, path)
    elif kind == "open_clip":
        save_file(weights | {"visual.proj": torch.zeros(3, OUT), PROJECTION: JOINT}, path)
    elif kind == "open_clip_linear":
        save_file({f"text.{n}": v for n, v in weights.items()} | {"text.text_projection.weight": linear}, path)
    else:
        save_file(weights, path)
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["openai", "hugging_face", "open_clip", "open_clip_linear"])
def test_the_projection_of_every_source(tmp_path: Path, kind: str, mesm) -> None:
    given, out = source(kind, tmp_path), tmp_path / "out.safetensors"
    done = mesm("prepare", "clip-text", given, out, "--heads", "2", "--json")
    assert done.code == 0, done.err
    assert '"projection": 6' in done.out
    model, projection = load_clip_joint(out)
    assert torch.equal(projection, JOINT)
    assert hash_weights(model) == hash_weights(tiny())


def test_the_text_encoder_does_not_change_by_it(tmp_path: Path) -> None:
    weights, _ = read_clip_weights(source("open_clip", tmp_path))
    bare = {name: value for name, value in weights.items() if name != PROJECTION}
    write_clip_text(tmp_path / "with.safetensors", weights, heads=2, activation="quick_gelu")
    write_clip_text(tmp_path / "without.safetensors", bare, heads=2, activation="quick_gelu")
    models = [load_clip_text(tmp_path / f"{name}.safetensors", width=WIDTH) for name in ("with", "without")]
    assert hash_weights(models[0]) == hash_weights(models[1]) == hash_weights(tiny())


def sentences() -> ClipSentences:
    return ClipSentences(model=tiny(), projection=JOINT, tokenizer=ClipTokenizer(), device=torch.device("cpu"))


def test_a_sentence_is_its_end_token_projected() -> None:
    ids = [49406, 320, 2533, 533, 5154, 49407]
    with torch.inference_mode():
        hidden = tiny()(torch.tensor([ids]))[0, -1] @ JOINT
    expected = (hidden / hidden.norm()).numpy()
    long = "a person is putting a book on a shelf " * 20
    found = sentences().embed(["a person is putting", long, "a person is putting"])
    assert found.dtype == np.float32
    assert np.allclose(found[0], expected, atol=1e-5)
    assert np.array_equal(found[0], found[2])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_long_sentence_is_cut_to_the_context_and_still_ends() -> None:
    encoder = sentences()
    long = " ".join(["person"] * 100)
    cut = " ".join(["person"] * 75)
    assert np.allclose(encoder.embed([long]), encoder.embed([cut]), atol=1e-6)
    assert not np.allclose(encoder.embed([cut]), encoder.embed([" ".join(["person"] * 74)]), atol=1e-4)
    assert encoder.embed([]).shape == (0, OUT)
    with pytest.raises(TextError, match="empty"):
        encoder.embed(["a person", " "])


@pytest.mark.parametrize(
    ("projection", "expected"),
    [
        (None, r"no text projection.*\n.*mesm prepare clip-text ViT-B-32\.pt .*x\.safetensors --overwrite"),
        (torch.zeros(WIDTH + 1, OUT), r"shape \(17, 6\); the text encoder is 16 wide"),
        (torch.zeros(WIDTH), r"shape \(16,\)"),
        (torch.full((WIDTH, OUT), torch.nan), "other than finite numbers"),
        (torch.zeros(WIDTH, OUT, dtype=torch.int64), "other than finite numbers"),
    ],
)
def test_projections_that_cannot_be_used(tmp_path: Path, projection: Tensor | None, expected: str) -> None:
    weights = dict(tiny().state_dict()) | ({} if projection is None else {PROJECTION: projection})
    path = tmp_path / "x.safetensors"
    write_clip_text(path, weights, heads=2, activation="quick_gelu")
    with pytest.raises(TextError) as error:
        build_sentences(path, device=torch.device("cpu"))
    assert re.search(expected, str(error.value)), str(error.value)
    assert load_clip_text(path, width=WIDTH).width == WIDTH


def test_embeddings_that_are_not_finite() -> None:
    encoder = sentences()
    encoder._model.ln_final.weight.data[0] = torch.inf
    with pytest.raises(TextError, match="NaN or infinity"):
        encoder.embed(["a person"])
