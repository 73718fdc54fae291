from __future__ import annotations

import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mesm_core.arrays import normalise
from mesm_core.errors import OutputError, TextError
from mesm_core.text.cache import TextCache
from mesm_core.text.clip import ClipText
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.clip_weights import load_clip_text, read_clip_weights, write_clip_text
from mesm_core.text.vocabulary import Vocabulary, VocabularyText, read_vocabulary, write_vocabulary
from mesm_core.text.words import LexiconTagger
from tests.conftest import Evil
from tests.text.tiny_towers import WIDTH, tiny, write_source

TOKENIZER = ClipTokenizer()


def encoder(cache: TextCache | None = None, max_words: int = 8) -> ClipText:
    return ClipText(
        model=tiny(),
        tokenizer=TOKENIZER,
        label_ids=[320, 2533],
        tagger=LexiconTagger(),
        max_words=max_words,
        device=torch.device("cpu"),
        cache=cache,
    )


def vocabulary() -> Vocabulary:
    return Vocabulary(("he", "cuts", "bread"), (5, 1, 5), np.arange(9, dtype=np.float32).reshape(3, 3) + 1)


ENCODER = encoder()
VOCABULARY_TEXT = VocabularyText(vocabulary=vocabulary(), vocab_size=2, tagger=LexiconTagger(), max_words=8)


def test_words_of_clip() -> None:
    words = encoder().words("A person indoctrinates the xyzzy cup and more and more")
    assert words.tokens[0] == "<|startoftext|>"
    assert words.tokens[-1] == "<|endoftext|>"
    assert len(words.tokens) == 8
    assert words.labels[:3].tolist() == [3, 0, 1]
    assert words.labels[-1] == 4
    assert words.unknown[0] == words.unknown[-1] == np.False_
    assert words.weights[0] == words.weights[-1] == 0
    assert encoder().classes == 5


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=120).filter(lambda text: text.strip()))
@example("🙂" * 50)
@example("שלום עולם")
@example("a\u200bb\u200d")
@example("?!…(),;")
@example("x" * 10_000)
@example("\ud800 lone")
def test_any_text_has_words_within_bounds(sentence: str) -> None:
    for text in (ENCODER, VOCABULARY_TEXT):
        words = text.words(sentence)
        assert 1 <= len(words.tokens) <= 8
        assert len(words.tokens) == len(words.labels) == len(words.unknown) == len(words.weights)
        assert (words.labels >= 0).all()
        assert (words.labels < text.classes).all()
    assert np.isfinite(VOCABULARY_TEXT.features(sentence).words).all()


def test_features_do_not_depend_on_the_batch() -> None:
    text = encoder()
    sentences = ["a person", "a person opens the door of a red car", "x"]
    together = text._encode(sentences)
    for sentence, vectors in zip(sentences, together, strict=True):
        assert len(vectors) == len(text.ids(sentence))
        assert np.allclose(vectors, text._encode([sentence])[0], atol=2e-3)
    features = text.features("a person")
    assert np.allclose(np.linalg.norm(features.words, axis=1), 1, atol=1e-5)
    raw = together[0].astype(np.float32)
    assert np.allclose(features.words, normalise(raw), atol=1e-3)


def test_sentences_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder(TextCache(tmp_path / "text.sqlite"))
    done: list[int] = []
    first.prepare(["a", "b c", "a"], done.append)
    assert sum(done) == 2
    second = encoder(TextCache(tmp_path / "text.sqlite"))
    monkeypatch.setattr(second, "_encode", None)
    second.prepare(["a", "b c"])
    assert np.array_equal(first.features("b c").words, second.features("b c").words)


def test_vectors_that_are_not_finite_are_refused_and_not_cached(tmp_path: Path) -> None:
    cache = TextCache(tmp_path / "text.sqlite")
    text = encoder(cache)
    text._model.ln_final.weight.data[0] = torch.nan
    with pytest.raises(TextError, match="NaN or infinity"):
        text.prepare(["a person"])
    assert cache.read({"a person": text._key("a person")}) == {}


def test_cache_is_shared_safely(tmp_path: Path) -> None:
    def fill(number: int) -> None:
        cache = TextCache(tmp_path / "text.sqlite")
        for index in range(20):
            cache.write({f"{index % 10}".encode(): np.full((2, 3), index % 10, np.float16)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(4)))
    found = TextCache(tmp_path / "text.sqlite").read({str(i): f"{i}".encode() for i in range(12)})
    assert sorted(found) == [str(i) for i in range(10)]
    assert found["7"].tolist() == [[7] * 3] * 2


def test_damaged_cache(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(OutputError, match="MESM_CACHE"):
        TextCache(tmp_path / "text.sqlite")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["script", "pth", "nested", "open_clip", "custom", "hugging_face"])
def test_weights_from_every_source(tmp_path: Path, kind: str) -> None:
    model = tiny()
    weights, _ = read_clip_weights(write_source(kind, tmp_path, model))
    out = tmp_path / "out.safetensors"
    write_clip_text(out, weights, heads=2, activation="quick_gelu")
    again = load_clip_text(out, width=WIDTH)
    ids = torch.tensor([[49406, 320, 2533, 49407, 0]])
    with torch.inference_mode():
        assert torch.allclose(model(ids), again(ids), atol=1e-6)


def test_weights_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Evil()}, "evil.pt")
    save_file({"visual.conv1.weight": torch.zeros(2)}, "visual.safetensors")
    Path("cut.safetensors").write_bytes(b"12")
    Path("text.pt").write_text("hello")
    torch.save([1, 2], "list.pt")
    expected = {
        "evil.pt": "without running code",
        "visual.safetensors": "no CLIP text tower",
        "cut.safetensors": "damaged",
        "text.pt": "cannot be read",
        "list.pt": "holds list",
        "none.pt": "No CLIP weights",
    }
    for name, message in expected.items():
        with pytest.raises(TextError, match=message):
            read_clip_weights(Path(name))
    assert not Path("evil-was-here").exists()
    out = tmp_path / "tiny.safetensors"
    write_clip_text(out, tiny().state_dict(), heads=2, activation="gelu")
    with pytest.raises(TextError, match=r"16 wide, but model.text_dim is 512"):
        load_clip_text(out, width=512)


def as_pickle(path: Path, **changes: object) -> Path:
    given = vocabulary()
    content = {
        "w2id": {"<PAD>": 0} | {word: n for n, word in enumerate(given.words, start=1)},
        "id2vec": [np.zeros(3, np.float32), *given.vectors],
        "counter": Counter(dict(zip(given.words, given.counts, strict=True))),
    }
    path.write_bytes(pickle.dumps(content | changes))
    return path


def test_vocabulary_files(tmp_path: Path) -> None:
    read = read_vocabulary(as_pickle(tmp_path / "glove.pkl"))
    write_vocabulary(tmp_path / "glove.h5", read)
    for again in (read, read_vocabulary(tmp_path / "glove.h5", dim=3)):
        assert again.words == vocabulary().words
        assert again.counts == vocabulary().counts
        assert np.array_equal(again.vectors, vocabulary().vectors)
    assert read.most_common(2) == ["he", "bread"]
    (tmp_path / "link.pkl").write_text("glove.pkl\n")
    assert read_vocabulary(tmp_path / "link.pkl").words == read.words


def test_vocabulary_files_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TextError, match="No vocabulary file"):
        read_vocabulary(tmp_path / "none.pkl")
    with pytest.raises(TextError, match=r"(posix|nt)\.mkdir, which arrays do not need"):
        read_vocabulary(as_pickle(tmp_path / "evil.pkl", extra=Evil()))
    assert not Path("evil-was-here").exists()
    with pytest.raises(TextError, match=r"not a glove\.pkl"):
        read_vocabulary(as_pickle(tmp_path / "odd.pkl", id2vec=[]))
    (tmp_path / "cut.pkl").write_bytes(as_pickle(tmp_path / "a.pkl").read_bytes()[:40] + b"x" * 300)
    with pytest.raises(TextError, match="not a readable pickle"):
        read_vocabulary(tmp_path / "cut.pkl")
    with pytest.raises(TextError, match=r"3 wide, but model\.text_dim is 300"):
        read_vocabulary(as_pickle(tmp_path / "b.pkl"), dim=300)
    (tmp_path / "odd.h5").write_bytes(b"no")
    with pytest.raises(TextError, match="not a vocabulary file"):
        read_vocabulary(tmp_path / "odd.h5")


def test_words_outside_the_vocabulary_are_dropped() -> None:
    text = VocabularyText(vocabulary=vocabulary(), vocab_size=2, tagger=LexiconTagger(), max_words=4)
    words, features = text.words("He quickly cuts bread."), text.features("He quickly cuts bread.")
    assert words.tokens == ("he", "cuts", "bread")
    assert words.labels.tolist() == [0, 2, 1]
    assert words.weights.tolist() == [1, 2, 2]
    assert np.allclose(features.words, normalise(vocabulary().vectors))
    nothing = text.features("Xyzzy plugh")
    assert nothing.words.tolist() == [[0, 0, 0]]
    assert text.words("Xyzzy").unknown.tolist() == [True]
    with pytest.raises(TextError, match="empty"):
        text.features(" ")
    with pytest.raises(TextError, match=r"3 words, fewer than text\.vocab_size = 4"):
        VocabularyText(vocabulary=vocabulary(), vocab_size=4, tagger=LexiconTagger(), max_words=4)
