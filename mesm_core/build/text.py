"""Settings -> text encoder: one line an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mesm_core.build.data import Paths
from mesm_core.caches import default_notes, identity_of
from mesm_core.config.schema import AUTO, Config
from mesm_core.data.counts import label_words, read_clip_counts, read_glove_counts
from mesm_core.errors import CheckpointError, TextError
from mesm_core.model.weights import hash_weights
from mesm_core.text.cache import TextCache, default_cache_path
from mesm_core.text.clip import ClipText, ClipTextTransformer, KnownTower
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.clip_joint import ClipSentences
from mesm_core.text.clip_weights import load_clip_joint, load_clip_text
from mesm_core.text.encoder import TextEncoder
from mesm_core.text.glove import FIRST_WORD, GloveTable, GloveText, check_glove, read_glove
from mesm_core.text.vocabulary import Vocabulary, VocabularyText, read_vocabulary
from mesm_core.text.words import make_tagger

SHORTEST_CONTEXT = 3
"""Of CLIP's text encoder: one token between start and end."""


def build_text(config: Config, paths: Paths, *, device: torch.device) -> TextEncoder:
    """Return the text encoder of a training run, from files.

    Raises:
        TextError: a file is missing or does not fit; DataError: the count file is malformed.
    """
    return _FROM_FILES[config.text.encoder](with_counted_words(config, paths), paths, device)


def with_counted_words(config: Config, paths: Paths) -> Config:
    """Return the config with the number of words that were counted in place of a ``text.vocab_size`` of ``auto``.

    Raises:
        TextError: the count file or vocabulary is missing or empty; DataError: it is malformed.
    """
    if config.text.vocab_size != AUTO:
        return config
    counts = paths.annotations / config.text.counts
    source, number = {
        "glove": lambda: (counts, len(read_glove_counts(counts))),
        "glove-pkl": lambda: (paths.text, len(read_vocabulary(paths.text).words)),
        "clip": lambda: (counts, len(read_clip_counts(counts))),
    }[config.text.encoder]()
    if not number:
        raise TextError(f"{source} has no words.", hint="`mesm count-tokens --overwrite` counts them again.")
    return config.with_label_words(number)


def text_checks(config: Config, paths: Paths) -> list[Callable[[], object]]:
    """Return checks of the text encoder's files, each to be called by itself; none reads a large file to its end.

    Raises (each check):
        TextError: a file is missing or does not fit; DataError: it is malformed.
    """
    counts = paths.annotations / config.text.counts
    dim = config.model.text_dim

    def labels() -> None:
        words = list(map(str, read_clip_counts(counts) if config.text.encoder == "clip" else read_glove_counts(counts)))
        label_words(words, with_counted_words(config, paths).text.label_words, path=counts)

    def weights() -> None:
        if not paths.text.is_file():
            load_clip_text(paths.text, width=dim)

    if config.text.encoder == "glove-pkl":
        return [lambda: build_text(config, paths, device=torch.device("cpu"))]
    file = weights if config.text.encoder == "clip" else lambda: check_glove(paths.text, dim=dim)
    return [labels, file, lambda: make_tagger(config.text.tagger)]


def build_text_from_state(
    config: Config, state: Mapping[str, Any], *, device: torch.device, path: Path | None = None
) -> TextEncoder:
    """Return the text encoder that a checkpoint holds, or names by path and hash.

    Args:
        path: where CLIP's weights lie now, if not where they lay at training.

    Raises:
        TextError: CLIP's weights are missing; CheckpointError: they are others than at training.
    """
    return _FROM_STATE[config.text.encoder](config, state, device, path)


def build_text_to_ask(config: Config, paths: Paths, *, device: torch.device) -> TextEncoder:
    """Return the text encoder of a checkpoint that does not hold it; unlike training, CLIP's needs no count file.

    Only masked-word reconstruction asks which words were counted; where they are not known, answers are the same.

    Raises:
        TextError: a file is missing or does not fit; DataError: the count file is malformed.
    """
    if config.text.encoder == "clip" and not (paths.annotations / config.text.counts).is_file():
        return _clip_text(config, paths.text, range(config.text.label_words), device)
    return build_text(config, paths, device=device)


def build_sentences(path: Path, *, device: torch.device) -> ClipSentences:
    """Return the encoder of sentences into the space that CLIP's text and images share.

    Raises:
        TextError: the weights are missing, of another tokenizer, or have no text projection.
    """
    (model, projection), tokenizer = load_clip_joint(path), ClipTokenizer()
    _refuse_other_tokens(model, tokenizer, SHORTEST_CONTEXT, path)
    return ClipSentences(model=model, projection=projection, tokenizer=tokenizer, device=device, path=path)


def _glove(config: Config, paths: Paths, device: torch.device) -> GloveText:
    counts = paths.annotations / config.text.counts
    words = read_glove_counts(counts)
    labels = label_words(words, config.text.label_words, path=counts)
    table = read_glove(paths.text, words, dim=config.model.text_dim, seed=config.train.seed)
    return _glove_text(config, table, labels)


def _glove_from_state(config: Config, state: Mapping[str, Any], device: torch.device, path: Path | None) -> GloveText:
    words = _listed(state, "words", str)
    table = GloveTable(tuple(words), _vectors(config, state, rows=len(words) + FIRST_WORD))
    return _glove_text(config, table, _listed(state, "label_words", str))


def _glove_text(config: Config, table: GloveTable, labels: Sequence[str]) -> GloveText:
    tagger = make_tagger(config.text.tagger)
    return GloveText(table=table, label_words=labels, tagger=tagger, max_words=config.dataset.max_words)


def _vocabulary(config: Config, paths: Paths, device: torch.device) -> VocabularyText:
    return _vocabulary_text(config, read_vocabulary(paths.text, dim=config.model.text_dim))


def _vocabulary_from_state(
    config: Config, state: Mapping[str, Any], device: torch.device, path: Path | None
) -> VocabularyText:
    words, counts = _listed(state, "words", str), _listed(state, "counts", int)
    if len(words) != len(counts):
        raise _damaged("counts")
    vocabulary = Vocabulary(tuple(words), tuple(counts), _vectors(config, state, rows=len(words)))
    return _vocabulary_text(config, vocabulary)


def _vocabulary_text(config: Config, vocabulary: Vocabulary) -> VocabularyText:
    return VocabularyText(
        vocabulary=vocabulary,
        vocab_size=config.text.label_words,
        tagger=make_tagger(config.text.tagger),
        max_words=config.dataset.max_words,
    )


def _clip(config: Config, paths: Paths, device: torch.device) -> ClipText:
    counts = paths.annotations / config.text.counts
    labels = label_words(read_clip_counts(counts), config.text.label_words, path=counts)
    return _clip_text(config, paths.text, labels, device)


def _clip_from_state(config: Config, state: Mapping[str, Any], device: torch.device, path: Path | None) -> ClipText:
    recorded = state.get("path")
    if path is None and not isinstance(recorded, str):
        raise CheckpointError("The checkpoint does not say where CLIP's weights lie.", hint="Give --clip FILE.")
    labels = _listed(state, "label_ids", int)
    encoder = _clip_text(config, path or Path(str(recorded)), labels, device)
    if encoder.weights_hash != state.get("hash"):
        raise CheckpointError(
            f"The CLIP text encoder {encoder.path} is another than at training (its weights differ).",
            hint="Give the same weights with --clip FILE.",
        )
    return encoder


def _clip_text(config: Config, path: Path, labels: Sequence[int], device: torch.device) -> ClipText:
    model, tokenizer = _text_tower(path, config.model.text_dim), ClipTokenizer()
    _refuse_other_tokens(model, tokenizer, config.dataset.max_words, path)
    half = config.text.clip_dtype == "float16" and device.type == "cuda"
    return ClipText(
        model=model,
        tokenizer=tokenizer,
        label_ids=labels,
        tagger=make_tagger(config.text.tagger),
        max_words=config.dataset.max_words,
        device=device,
        dtype=torch.float16 if half else torch.float32,
        cache=TextCache(default_cache_path()),
        path=path,
    )


def _text_tower(path: Path, width: int) -> ClipTextTransformer | KnownTower:
    """Return the transformer of a weights file; where the file was read before, its weights wait until they are needed.

    Raises:
        TextError: the file cannot be used, or is of another width.
    """
    notes, what = default_notes(), "text tower"
    noted, seen = notes.get(path, what), identity_of(path)
    if isinstance(noted, list) and len(noted) == 4 and isinstance(noted[0], str) and noted[1] == width:
        return KnownTower(partial(load_clip_text, path, width=width), *noted)
    model = load_clip_text(path, width=width)
    if seen is not None:
        notes.put(path, what, [hash_weights(model), model.width, model.vocabulary, model.context], seen=seen)
    return model


def _refuse_other_tokens(
    model: ClipTextTransformer | KnownTower, tokenizer: ClipTokenizer, max_words: int, path: Path
) -> None:
    """Raise TextError where weights are of another tokenizer than CLIP's, or read shorter sentences."""
    tokens = tokenizer.end + 1
    if model.vocabulary != tokens:
        raise TextError(
            f"The CLIP text encoder in {path} has {model.vocabulary:,} tokens; CLIP's tokenizer has {tokens:,}.",
            hint="Only weights that were trained with CLIP's own tokenizer can be used.",
        )
    if model.context < max_words:
        raise TextError(
            f"The CLIP text encoder in {path} reads {model.context} tokens, but dataset.max_words is {max_words}.",
            hint=f"Use --set dataset.max_words={model.context}.",
        )


def _listed(state: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    """Return a list that a checkpoint holds of its text encoder.

    Raises:
        CheckpointError: it is missing or something else.
    """
    value = state.get(name)
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise _damaged(name)
    return value


def _vectors(config: Config, state: Mapping[str, Any], *, rows: int) -> np.ndarray:
    vectors = state.get("vectors")
    if not isinstance(vectors, torch.Tensor) or vectors.shape != (rows, config.model.text_dim):
        raise _damaged("vectors")
    return vectors.float().numpy()


def _damaged(name: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint is damaged: the '{name}' of its text encoder are missing, or not what its settings say.",
        hint="Copy the file again, or use another.",
    )


_FROM_FILES: dict[str, Callable[[Config, Paths, torch.device], TextEncoder]] = {
    "glove": _glove,
    "glove-pkl": _vocabulary,
    "clip": _clip,
}
_FROM_STATE: dict[str, Callable[[Config, Mapping[str, Any], torch.device, Path | None], TextEncoder]] = {
    "glove": _glove_from_state,
    "glove-pkl": _vocabulary_from_state,
    "clip": _clip_from_state,
}
