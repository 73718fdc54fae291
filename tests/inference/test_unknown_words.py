"""Queries with words that have no vector in the text encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mesm_core.inference.predictor import MomentRetriever
from mesm_core.text.glove import GloveTable, GloveText
from mesm_core.text.vocabulary import Vocabulary, VocabularyText
from mesm_core.text.words import LexiconTagger
from tests.conftest import Trained


def glove_text() -> GloveText:
    """Return an encoder that knows "cuts" and "he"; its GloVe file lacked "whisks"."""
    vectors = np.eye(5, 4, dtype=np.float32)
    vectors[4] = vectors[1]
    table = GloveTable(("cuts", "he", "whisks"), vectors)
    return GloveText(table=table, label_words=["he"], tagger=LexiconTagger(), max_words=6)


def vocabulary_text() -> VocabularyText:
    vocabulary = Vocabulary(("he", "cuts"), (2, 1), np.ones((2, 4), np.float32))
    return VocabularyText(vocabulary=vocabulary, vocab_size=1, tagger=LexiconTagger(), max_words=6)


@pytest.mark.parametrize("text", [glove_text(), vocabulary_text()], ids=["glove", "glove-pkl"])
@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("He cuts.", {"he": True, "cuts": True}),
        ("He whisks xyzzy, xyzzy.", {"he": True, "whisks": False, "xyzzy": False}),
        ("Xyzzy's qwrtp!", {"xyzzy": False, "qwrtp": False}),
        ("?!", {"?": False, "!": False}),
    ],
)
def test_known_words_of_sentences(text: GloveText | VocabularyText, sentence: str, expected: dict[str, bool]) -> None:
    assert text.known_words(sentence) == expected


def test_words_after_the_maximum_length_are_unknown_to_glove_text() -> None:
    assert not any(glove_text().known_words("a b c d e f he").values())
    assert vocabulary_text().known_words("a b c d e f he")["he"]


def test_answers_list_unknown_words(trained: Trained) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu")
    lost, partly, known = retriever.locate(
        np.ones((20, 12), np.float32), ["xyzzy qwrtp", "He cuts xyzzy.", "The man cuts a pan."], duration=40.0
    )
    assert (lost.unknown_words, lost.all_words_unknown) == (("xyzzy", "qwrtp"), True)
    assert "no word of the query 'xyzzy qwrtp' (xyzzy, qwrtp)" in lost.warnings[0]
    assert "xyzzy" in partly.unknown_words
    assert not partly.all_words_unknown
    assert (partly.warnings, known.unknown_words, known.warnings) == ((), (), ())


def test_predict_warns_of_unknown_words(mesm, trained: Trained) -> None:
    words = ["predict", trained.best, "--video", "test-000", "xyzzy qwrtp", "cuts blorf", "The man cuts a pan."]
    result = mesm(*words, "--json")
    assert result.code == 0
    lost, partly, known = json.loads(result.out)
    assert (lost["unknown_words"], lost["all_words_unknown"]) == (["xyzzy", "qwrtp"], True)
    assert (partly["unknown_words"], partly["all_words_unknown"]) == (["blorf"], False)
    assert (known["unknown_words"], known["all_words_unknown"], known["warnings"]) == ([], False, [])
    assert "Warning: test-000: the model knows no word of the query 'xyzzy qwrtp' (xyzzy, qwrtp)" in result.err
    assert result.err.count("the model does not know blorf in 'cuts blorf'") == 1
    assert "Warning" in mesm(*words, "--output", "-").err
    (note,) = mesm("predict", trained.best, "--video", "test-000", "The man cuts a pan.").err.splitlines()
    assert note.startswith("The model has no calibration")
