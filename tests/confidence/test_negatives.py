"""Questions without an answer: which sentences are asked of which videos."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mesm_core.confidence.negatives import halves, out_of_domain_sentences, questions_of_halves
from mesm_core.data.readers import read_split
from mesm_core.text.near_duplicates import content_words, near_duplicates
from mesm_core.types import Query

RARE, SENTENCES = 5, 42_000
SPLITS = {
    "charades": ("charades/annotations", ("train", "test")),
    "charades-cd": ("Charades-CD", ("train", "val", "test_iid", "test_ood")),
    "charades-cg": ("Charades-CG", ("train", "novel_composition", "novel_word", "test_trivial")),
    "tacos": ("TACoS/annotations", ("train", "val", "test")),
    "qvhighlights": ("qvhighlights/annotations", ("train", "val", "test")),
}


def queries(videos: int, *, each: int = 3) -> list[Query]:
    rng = np.random.default_rng(0)
    actions, things = ("opens", "washes", "cuts", "holds"), ("door", "pan", "book", "towel", "apple")
    return [
        Query(n, f"v{v}", f"A person {rng.choice(actions)} the {rng.choice(things)}.", 30.0, ((float(n), n + 5.0),))
        for v in range(videos)
        for n in range(each)
    ]


def test_the_half_of_a_video_does_not_depend_on_the_other_videos() -> None:
    names = [f"v{n}" for n in range(1001)]
    first, second = halves(names)
    assert not first & second
    assert 450 < len(first) < 551
    assert halves(names[700::-1]) == (first & set(names[:701]), second & set(names[:701]))
    assert halves(names, seed=1) != (first, second)


def test_questions_do_not_depend_on_the_order_of_the_queries() -> None:
    asked = queries(12)
    assert questions_of_halves(asked) == questions_of_halves(asked[::-1])
    assert questions_of_halves(asked, seed=1) != questions_of_halves(asked)


def test_no_video_and_no_sentence_of_the_list_is_in_both_halves() -> None:
    fit, report = questions_of_halves(queries(12))
    for part in ("real", "in_domain", "out_of_domain"):
        assert not {q.vid for q in getattr(fit, part)} & {q.vid for q in getattr(report, part)}
    assert not {q.sentence for q in fit.out_of_domain} & {q.sentence for q in report.out_of_domain}
    assert len(fit.real) + len(report.real) == 36


def test_clips_of_one_source_are_in_the_same_half_and_give_each_other_no_negatives() -> None:
    clips = [Query(n, f"a_{n}", f"He kicks ball {n}.", 30.0, ((0.0, 5.0),), source="a") for n in range(4)]
    others = [Query(n, f"b_{n}", "She paints a wall.", 30.0, ((0.0, 5.0),), source="b") for n in range(4)]
    fit, report = questions_of_halves([*clips, *others])
    assert {q.source for q in fit.real} != {q.source for q in report.real}
    assert fit.in_domain == report.in_domain == ()


def test_an_in_domain_negative_is_unlike_every_sentence_about_the_asked_video() -> None:
    asked = queries(12)
    for half in questions_of_halves(asked):
        assert half.in_domain
        for negative in half.in_domain:
            about = [query.sentence for query in asked if query.vid == negative.vid]
            words = content_words(negative.sentence)
            assert not any(near_duplicates(words, content_words(own)) for own in about)
            assert negative.sentence in {query.sentence for query in half.real}
            assert (negative.windows, negative.qid) == ((), None)


def test_videos_with_the_same_sentences_have_no_in_domain_negatives() -> None:
    same = [Query(n, f"v{n}", "A person opens the door.", 30.0, ((0.0, 5.0),)) for n in range(8)]
    halved = questions_of_halves(same)
    assert all(half.in_domain == () for half in halved)
    assert sum(len(half.out_of_domain) for half in halved) == 8


def test_sentences_without_content_words_are_near_duplicates_of_all() -> None:
    assert near_duplicates(content_words("It is there."), content_words("He kicks a ball."))


def test_shipped_sentences_are_distinct_and_unlike_each_other() -> None:
    sentences = out_of_domain_sentences()
    assert len(sentences) == len(set(sentences)) == 200
    words = [content_words(sentence) for sentence in sentences]
    assert all(2 <= len(own) <= 9 for own in words)
    assert not [a for n, a in enumerate(words) for b in words[:n] if near_duplicates(a, b)]


@pytest.fixture(scope="module")
def annotated(shared: Path) -> set[str]:
    """All sentences of the datasets' annotations."""
    return {
        query.sentence
        for name, (folder, splits) in SPLITS.items()
        for split in splits
        for query in read_split(name, shared / "data" / folder, split).queries
    }


def test_words_of_shipped_sentences_are_rare_in_the_datasets(annotated: set[str]) -> None:
    """At least two words of each occur in at most ``RARE`` of all annotated sentences."""
    assert len(annotated) > SENTENCES
    counts = Counter(word for sentence in annotated for word in set(re.findall("[a-z']+", sentence.lower())))
    for sentence in out_of_domain_sentences():
        words = [word for word in re.findall("[a-z']+", sentence.lower()) if len(word) > 2]
        assert sum(counts[word] <= RARE for word in set(words)) >= 2, sentence


def test_no_annotated_sentence_is_like_a_shipped_one(annotated: set[str]) -> None:
    by_word: dict[str, list[int]] = {}
    shipped = [content_words(sentence) for sentence in out_of_domain_sentences()]
    for number, words in enumerate(shipped):
        for word in words:
            by_word.setdefault(word, []).append(number)
    for sentence in annotated:
        words = content_words(sentence)
        shared_with = {number for word in words for number in by_word.get(word, ())}
        alike = [number for number in shared_with if len(words) > 2 and near_duplicates(words, shipped[number])]
        assert not alike, (sentence, out_of_domain_sentences()[alike[0]])
