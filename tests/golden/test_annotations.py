"""What the readers and the tokenizer must produce, row by row and summed over whole splits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesm_core.build import Paths, build_text
from mesm_core.data.annotations import read_split
from mesm_core.data.counting import count_dataset
from mesm_core.text.glove import GloveText
from mesm_core.text.words import CONTENT_TAGS, LexiconTagger, NltkTagger
from tests.conftest import small_config


def golden_rows(shared: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(shared / "golden" / "annotations" / f"{name}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def nltk_text(shared: Path) -> GloveText:
    patch = pytest.MonkeyPatch()
    patch.setenv("NLTK_DATA", str(shared / "nltk_data"))
    import nltk

    patch.setattr(nltk.data, "path", [str(shared / "nltk_data")])
    config = small_config("model.text_dim=300", "text.vocab_size=1111", "text.tagger=nltk")
    annotations = shared / "data" / "TACoS" / "annotations"
    yield build_text(config, Paths(annotations, (), shared / "glove" / "glove.subset.300d.txt.gz"))
    patch.undo()


@pytest.mark.parametrize("split", ["train", "test"])
def test_tacos_rows(shared: Path, nltk_text: GloveText, split: str) -> None:
    rows = golden_rows(shared, f"tacos_glove.{split}")
    queries = read_split("tacos", shared / "data" / "TACoS" / "annotations", split).queries
    for row, query in zip(rows, queries, strict=False):
        words = nltk_text.words(query.sentence)
        assert (query.qid, query.vid, query.sentence) == (row["qid"], row["video_id"], row["sentence"])
        assert query.duration == pytest.approx(row["duration"], abs=1e-9)
        assert query.windows[0] == pytest.approx(row["moment"], abs=1e-9)
        fractions = np.array(query.windows[0]) / query.duration
        assert fractions == pytest.approx([row["start_idx"], row["end_idx"]], abs=1e-9)
        assert nltk_text.ids(query.sentence).tolist() == row["words"]
        assert words.weights.tolist() == row["weight"]
        assert words.unknown.astype(int).tolist() == row["unknown"]
        assert words.labels.tolist() == row["label"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_tacos_sums(shared: Path, nltk_text: GloveText, split: str) -> None:
    summary = json.loads((shared / "golden" / "annotations" / "summary.json").read_text())[f"tacos_glove/{split}"]
    queries = read_split("tacos", shared / "data" / "TACoS" / "annotations", split).queries
    words = [nltk_text.words(query.sentence) for query in queries]
    assert {
        "queries": len(queries),
        "videos": len({query.vid for query in queries}),
        "words": sum(len(w.tokens) for w in words),
        "unknown": sum(int(w.unknown.sum()) for w in words),
        "weight": sum(int(w.weights.sum()) for w in words),
        "label_sum": sum(int(w.labels.sum()) for w in words),
    } == summary


def test_counts_of_every_tacos_split(shared: Path) -> None:
    folder = shared / "data" / "TACoS" / "annotations"
    sizes = {}
    for split in ("train", "val", "test"):
        queries = read_split("tacos", folder, split).queries
        sizes[split] = (len(queries), len({query.vid for query in queries}))
    assert sizes == {"train": (9790, 75), "val": (4436, 27), "test": (4001, 25)}


def test_count_files_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "TACoS" / "annotations"
    written = count_dataset("tacos", folder, out=tmp_path, kinds=["glove", "clip"], max_words=16, overwrite=False)
    assert len(written) == 2
    for item in written:
        assert item.path.read_bytes() == (folder / item.path.name).read_bytes()


def sentences(shared: Path, dataset: str) -> list[str]:
    if dataset == "tacos":
        folder = shared / "data" / "TACoS" / "annotations"
        return [q.sentence for split in ("train", "val", "test") for q in read_split("tacos", folder, split).queries]
    files = (shared / "data" / "charades" / "annotations").glob("charades_sta_*.txt")
    return [line.split("##")[1] for path in sorted(files) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("dataset", ["tacos", "charades"])
def test_lexicon_agrees_with_nltk(shared: Path, monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(shared / "nltk_data")])
    ours, theirs = LexiconTagger(), NltkTagger()
    texts = sentences(shared, dataset)
    tokens = [theirs.tokens(text) for text in texts]
    same = sum(ours.tokens(text) == want for text, want in zip(texts, tokens, strict=True))
    assert same / len(texts) >= 0.999
    tagged = [pair for sentence in nltk.pos_tag_sents(tokens) for pair in sentence]
    want = [2 if any(part in tag for part in CONTENT_TAGS) else 1 for _, tag in tagged]
    got = ours.weights([word for word, _ in tagged])
    assert np.mean(np.array(got) == np.array(want)) >= 0.99
