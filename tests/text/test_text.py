from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mesm_core.arrays import normalise
from mesm_core.data.count_files import counts_text, glove_counts, label_words, read_glove_counts
from mesm_core.errors import ConfigError, DataError, TextError
from mesm_core.text import words
from mesm_core.text.clip_bpe import ClipTokenizer, find_merges
from mesm_core.text.glove import FIRST_WORD, UNKNOWN, GloveTable, GloveText, read_glove
from mesm_core.text.vocabulary import build_vocabulary
from mesm_core.text.words import LexiconTagger, NltkTagger, closed_class_words, count_words, make_tagger

TOKENIZER = ClipTokenizer()
LINES = "the 1 2 3\nknife 4 5 6\nzebra 7 8 9\n"


def glove_file(folder: Path, text: str = LINES, name: str = "glove.txt") -> Path:
    path = folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.stem + ".txt", text)
            archive.writestr("glove.other.txt", "the 9 9 9\n")
        return path
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def small_text(**settings: int) -> GloveText:
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    table = GloveTable(("cuts", "knife", "the"), vectors)
    return GloveText(
        table=table, label_words=["the", "knife"], tagger=LexiconTagger(), max_words=settings.get("max_words", 16)
    )


@pytest.mark.parametrize("name", ["glove.txt", "glove.txt.gz", "glove.zip"])
def test_glove_keeps_the_vocabularys_rows(tmp_path: Path, name: str) -> None:
    table = read_glove(glove_file(tmp_path, name=name), ["the", "knife", "unheard"], dim=3, seed=7)
    assert table.words == ("knife", "the", "unheard")
    assert table.vectors[FIRST_WORD:4].tolist() == [[4, 5, 6], [1, 2, 3]]
    assert np.array_equal(table.vectors[4], table.vectors[UNKNOWN])
    torch.manual_seed(7)
    assert np.array_equal(table.vectors[UNKNOWN], torch.randn(3).numpy())
    assert not table.vectors[0].any()


def test_glove_skips_a_header(tmp_path: Path) -> None:
    path = glove_file(tmp_path, "2 3\n2 9 9 9\nthe 1 2 3\n")
    assert read_glove(path, ["2", "the"], dim=3, seed=0).vectors[FIRST_WORD:].tolist() == [[9, 9, 9], [1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the 1 2\n", "line 1: a vector of 2 numbers, but model.text_dim is 3"),
        ("a 1 2 3\nthe 1 two 3\n", "line 2: 'the' is not followed by numbers"),
        ("dog 1 2 3\n", "none of the vocabulary"),
    ],
)
def test_glove_mistakes(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(TextError, match=expected):
        read_glove(glove_file(tmp_path, text), ["the"], dim=3, seed=0)


def test_vocabularies_read_glove_as_strictly(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="line 1: 'the' is not followed by numbers"):
        build_vocabulary(glove_file(tmp_path, "the 1 two 3\n"), [["the"]], dim=3)
    with pytest.raises(TextError, match="none of the vocabulary"):
        build_vocabulary(glove_file(tmp_path, "dog 1 2 3\n"), [["the"]], dim=3)


def test_glove_missing_and_damaged(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="No GloVe file"):
        read_glove(tmp_path / "none.txt", ["the"], dim=3, seed=0)
    path = glove_file(tmp_path, name="cut.txt.gz")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TextError, match="cannot be read"):
        read_glove(path, ["absent"], dim=3, seed=0)


def test_features_are_normalised() -> None:
    text = small_text()
    features = text.features("The knife cuts.")
    raw = text.table.vectors[[4, 3, 2, UNKNOWN]]
    assert np.allclose(features.words, normalise(raw))
    words = text.words("The knife cuts.")
    assert words.tokens == ("the", "knife", "cuts", ".")
    assert words.labels.tolist() == [0, 1, 2, 2]
    assert words.unknown.tolist() == [False, False, True, True]
    assert words.weights.tolist() == [1, 2, 2, 1]


def test_long_sentences_are_cut() -> None:
    text = small_text(max_words=2)
    assert text.words("The knife cuts.").tokens == ("the", "knife")
    assert text.features("The knife cuts.").words.shape == (2, 3)


def test_a_sentence_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences, tokens = [], LexiconTagger.tokens
    monkeypatch.setattr(LexiconTagger, "tokens", lambda self, text: sentences.append(text) or tokens(self, text))
    text = small_text()
    for _ in range(2):
        text.words("He cuts"), text.features("He cuts"), text.known_words("He cuts")
    assert sentences == ["He cuts"]


def test_unknown_words_only() -> None:
    features = small_text().features("Xyzzy plugh")
    assert np.isfinite(features.words).all()
    assert features.words.shape == (2, 3)


@pytest.mark.parametrize("query", ["", "  ", "\n\t"])
def test_empty_query(query: str) -> None:
    with pytest.raises(TextError, match="empty"):
        small_text().features(query)
    with pytest.raises(TextError, match="empty"):
        small_text().words(query)


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=200).filter(lambda text: text.strip()))
def test_any_text_tokenises(sentence: str) -> None:
    text = small_text()
    words, features = text.words(sentence), text.features(sentence)
    assert 1 <= len(words.tokens) <= 16
    assert len(words.tokens) == len(features.words) == len(words.labels) == len(words.weights)
    assert np.isfinite(features.words).all()
    ids = TOKENIZER.encode(sentence)
    assert all(0 <= number < 49408 for number in ids)
    assert all(word == word.lower() for word in count_words(sentence))


def test_ten_thousand_characters() -> None:
    sentence = "knife " * 1700
    assert len(small_text().words(sentence).tokens) == 16
    assert len(TOKENIZER.encode(sentence)) == 1700


@pytest.mark.parametrize(
    ("sentence", "tokens"),
    [
        ("He cannot cut it.", ["He", "can", "not", "cut", "it", "."]),
        ("It's the man's 1/2 lemon.", ["It", "'s", "the", "man", "'s", "1/2", "lemon", "."]),
        ("He cuts. She eats.", ["He", "cuts", ".", "She", "eats", "."]),
        ("Mr. Smith cuts.", ["Mr.", "Smith", "cuts", "."]),
        ("cuts (slowly)", ["cuts", "(", "slowly", ")"]),
    ],
)
def test_tokens_are_nltks(sentence: str, tokens: list[str]) -> None:
    assert LexiconTagger().tokens(sentence) == tokens


def test_nltk_is_imported_where_sentences_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(words, "_treebank", lambda: asked.append(True))
    LexiconTagger().prepare(["He cuts.", "She eats"])
    assert not asked
    LexiconTagger().prepare(["He cuts.", "(She eats)"])
    assert asked


def test_closed_class_words_are_lower_case_and_few() -> None:
    words = closed_class_words()
    assert {"the", "of", "he"} <= words
    assert len(words) < 250
    assert all(word == word.lower() for word in words)


def test_nltk_without_its_data_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(TextError, match=r"nltk\.downloader punkt_tab averaged_perceptron_tagger_eng"):
        NltkTagger()


def test_unknown_tagger() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'nltk'\?"):
        make_tagger("nltkk")


def test_clip_merges_are_found_without_importing_clip() -> None:
    import sys

    assert find_merges().name == "bpe_simple_vocab_16e6.txt.gz"
    assert "clip" not in sys.modules


def test_clip_specials() -> None:
    assert (TOKENIZER.start, TOKENIZER.end) == (49406, 49407)
    assert TOKENIZER.encode("<|startoftext|>a<|endoftext|>") == [49406, 320, 49407]


def test_damaged_merges(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(gzip.compress(b"#version\na b\n"))
    with pytest.raises(TextError, match="1 merges"):
        ClipTokenizer(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(TextError, match="cannot be read"):
        ClipTokenizer(path)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet="abc .,'", max_size=12), max_size=8))
def test_counts_round_trip(sentences: list[str]) -> None:
    rows = glove_counts(sentences)
    assert sum(count for *_, count in rows) == sum(len(count_words(sentence)) for sentence in sentences)
    assert sorted(number for _, number, _ in rows) == list(range(2, 2 + len(rows)))
    assert [count for *_, count in rows] == sorted((count for *_, count in rows), reverse=True)


def test_count_file_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "counts.txt"
    with pytest.raises(TextError, match="mesm count-tokens"):
        read_glove_counts(path)
    with pytest.raises(TextError, match="no annotations folder"):
        read_glove_counts(tmp_path / "none" / "counts.txt")
    path.write_bytes(counts_text([("he", 2, 5)]) + b"broken line here x\n")
    with pytest.raises(DataError, match="line 2"):
        read_glove_counts(path)
    path.write_bytes(b"he 2 5\n\xff\xfe 3 1\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_glove_counts(path)
    with pytest.raises(TextError, match=r"1 words, fewer than text.vocab_size = 3"):
        label_words(["he"], 3, path=path)
