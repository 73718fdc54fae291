"""What the readers and the tokenizers must produce, row by row and summed over whole splits, for every dataset."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mesm_core.build import Paths, build_text
from mesm_core.config.load import load_config
from mesm_core.data.count_dataset import count_dataset
from mesm_core.data.count_files import label_words, read_clip_counts
from mesm_core.data.readers import read_split
from mesm_core.inputs import link_target
from mesm_core.text.clip import ClipText, ClipTextTransformer
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.encoder import TextEncoder
from mesm_core.text.glove import GloveText
from mesm_core.text.vocabulary import build_vocabulary, read_vocabulary
from mesm_core.text.words import CONTENT_TAGS, LexiconTagger, NltkTagger
from mesm_core.types import Query

FOLDERS = {
    "charades": "charades/annotations",
    "charades-cd": "Charades-CD",
    "charades-cg": "Charades-CG",
    "qvhighlights": "qvhighlights/annotations",
    "tacos": "TACoS/annotations",
}
PRESETS = {
    "charades_clip": "charades",
    "charades_glove_pkl": "charades-vgg-glove",
    "charades-cd_clip": "charades-cd",
    "charades-cg_clip": "charades-cg",
    "qvhighlights_clip": "qvhighlights",
    "tacos_glove": "tacos",
}
SPLITS = {
    "charades_clip": ("train", "test"),
    "charades_glove_pkl": ("train", "test"),
    "charades-cg_clip": ("train", "novel_composition", "novel_word", "test_trivial"),
    "charades-cd_clip": ("train", "val", "test_iid", "test_ood"),
    "tacos_glove": ("train", "test"),
    "qvhighlights_clip": ("train", "val", "test"),
}
CASES = [(name, split) for name, splits in SPLITS.items() for split in splits]


@pytest.fixture(scope="module")
def nltk_tagger(shared: Path) -> Iterator[NltkTagger]:
    """NLTK's tagger, which tags a sentence once for all tests: datasets share their sentences."""
    import nltk

    tokenize, tag = cache(nltk.word_tokenize), cache(nltk.pos_tag)

    def pos_tag(words: Sequence[str]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = tag(tuple(words))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [str(shared / "nltk_data")])
        patch.setattr(nltk, "word_tokenize", tokenize)
        patch.setattr(nltk, "pos_tag", pos_tag)
        yield NltkTagger()


@pytest.fixture(scope="module")
def encoders(shared: Path, nltk_tagger: NltkTagger) -> dict[str, TextEncoder]:
    """One text encoder a kind of golden file, tagging with NLTK; CLIP's network is left out."""
    made: dict[str, TextEncoder] = {}
    for name, preset in PRESETS.items():
        config = load_config(preset, overrides=["text.tagger=nltk"])
        folder = shared / "data" / FOLDERS[config.dataset.name]
        if config.text.encoder == "clip":
            counts = folder / config.text.counts
            made[name] = ClipText(
                model=ClipTextTransformer(vocabulary=9, context=9, width=8, layers=1, heads=1),
                tokenizer=ClipTokenizer(),
                label_ids=label_words(read_clip_counts(counts), config.text.vocab_size, path=counts),
                tagger=nltk_tagger,
                max_words=config.dataset.max_words,
                device=torch.device("cpu"),
            )
        else:
            glove = shared / "glove" / "glove.subset.300d.txt.gz"
            text = folder / "glove.pkl" if config.text.encoder == "glove-pkl" else glove
            made[name] = build_text(config, Paths(folder, (), text), device=torch.device("cpu"))
    return made


@cache
def read(shared: Path, name: str, split: str) -> tuple[Query, ...]:
    dataset = load_config(PRESETS[name]).dataset.name
    return read_split(dataset, shared / "data" / FOLDERS[dataset], split).queries


def golden_rows(shared: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(shared / "golden" / "annotations" / f"{name}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(("name", "split"), CASES)
def test_rows(shared: Path, encoders: dict[str, TextEncoder], name: str, split: str) -> None:
    rows, queries, text = golden_rows(shared, f"{name}.{split}"), read(shared, name, split), encoders[name]
    clip_len = load_config(PRESETS[name]).dataset.clip_len
    for row, query in zip(rows, queries, strict=False):
        assert (query.qid, query.vid, query.sentence) == (row["qid"], row["video_id"], row["sentence"])
        assert query.duration == pytest.approx(row["duration"], abs=1e-9)
        windows = row["relevant_windows"] or ([row["moment"]] if row["moment"] else [])
        assert len(query.windows) == len(windows)
        for ours, theirs in zip(query.windows, windows, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-9)
        if row["start_idx"] is not None:
            start, end = query.windows[0]
            places = (start / query.duration, end / query.duration)
            if clip_len > 0:
                places = (math.floor(start / clip_len), math.floor(end / clip_len))
            assert places == pytest.approx((row["start_idx"], row["end_idx"]), abs=1e-9)
        words = text.words(query.sentence)
        if row["words"] is not None:
            assert isinstance(text, GloveText | ClipText)
            assert list(text.ids(query.sentence)) == row["words"]
        assert len(words.tokens) == row["n_words"]
        assert words.weights.tolist() == row["weight"]
        assert words.unknown.astype(int).tolist() == row["unknown"]
        assert words.labels.tolist() == row["label"]


@pytest.mark.parametrize(("name", "split"), CASES)
def test_sums(shared: Path, encoders: dict[str, TextEncoder], name: str, split: str) -> None:
    summary = json.loads((shared / "golden" / "annotations" / "summary.json").read_text())[f"{name}/{split}"]
    queries = read(shared, name, split)
    words = [encoders[name].words(query.sentence) for query in queries]
    assert {
        "queries": len(queries),
        "videos": len({query.group for query in queries}),
        "words": sum(len(w.tokens) for w in words),
        "unknown": sum(int(w.unknown.sum()) for w in words),
        "weight": sum(int(w.weights.sum()) for w in words),
        "label_sum": sum(int(w.labels.sum()) for w in words),
    } == summary


def test_every_golden_file_is_compared(shared: Path) -> None:
    files = {path.name.removesuffix(".jsonl.gz") for path in (shared / "golden" / "annotations").glob("*.gz")}
    assert files == {f"{name}.{split}" for name, split in CASES}


def test_counts_of_every_tacos_split(shared: Path) -> None:
    sizes = {}
    for split in ("train", "val", "test"):
        queries = read(shared, "tacos_glove", split)
        sizes[split] = (len(queries), len({query.vid for query in queries}))
    assert sizes == {"train": (9790, 75), "val": (4436, 27), "test": (4001, 25)}


@pytest.mark.parametrize("preset", ["charades", "qvhighlights", "tacos"])
def test_count_files_byte_for_byte(shared: Path, tmp_path: Path, preset: str) -> None:
    config = load_config(preset).dataset
    folder = shared / "data" / config.annotations
    published = list(folder.glob("*_tokenized_count.txt"))
    count_dataset(
        config.name, folder, out=tmp_path, kinds=["glove", "clip"], max_words=config.max_words, overwrite=False
    )
    assert published
    for path in published:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("preset", ["charades-cd", "charades-cg"])
def test_count_files_are_links(shared: Path, tmp_path: Path, preset: str) -> None:
    config = load_config(preset).dataset
    folder = shared / "data" / config.annotations
    for item in count_dataset(config.name, folder, out=tmp_path, kinds=["clip"], max_words=16, overwrite=False):
        assert item.path.is_symlink()
        assert item.path.read_bytes() == link_target(folder / item.path.name).read_bytes()


def test_the_published_vocabulary_comes_out_again(shared: Path, tmp_path: Path) -> None:
    published = read_vocabulary(shared / "data" / "charades" / "annotations" / "glove.pkl", dim=300)
    file = tmp_path / "glove.txt"
    lines = (
        f"{word} {' '.join(repr(float(x)) for x in vector)}\n"
        for word, vector in zip(reversed(published.words), published.vectors[::-1], strict=True)
    )
    file.write_text("".join(lines))
    tagger = LexiconTagger()
    queries = [query for split in ("train", "test") for query in read(shared, "charades_glove_pkl", split)]
    sentences = ([t.lower() for t in tagger.tokens(query.sentence)] for query in queries if not query.repaired)
    again = build_vocabulary(file, sentences, dim=300)
    assert again.words == published.words
    assert again.counts == published.counts
    assert np.array_equal(again.vectors, published.vectors)


def sentences(shared: Path, dataset: str) -> list[str]:
    if dataset == "tacos":
        return [q.sentence for split in ("train", "val", "test") for q in read(shared, "tacos_glove", split)]
    files = (shared / "data" / "charades" / "annotations").glob("charades_sta_*.txt")
    return [line.split("##")[1] for path in sorted(files) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("dataset", ["tacos", "charades"])
def test_lexicon_agrees_with_nltk(shared: Path, nltk_tagger: NltkTagger, dataset: str) -> None:
    import nltk

    ours, theirs = LexiconTagger(), nltk_tagger
    texts = sentences(shared, dataset)
    tokens = [theirs.tokens(text) for text in texts]
    same = sum(ours.tokens(text) == want for text, want in zip(texts, tokens, strict=True))
    assert same / len(texts) >= 0.999
    tagged = [pair for sentence in tokens for pair in nltk.pos_tag(sentence)]
    want = [2 if any(part in tag for part in CONTENT_TAGS) else 1 for _, tag in tagged]
    got = ours.weights([word for word, _ in tagged])
    assert np.mean(np.array(got) == np.array(want)) >= 0.99
