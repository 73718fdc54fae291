"""Config -> objects: the only package that reads a config and calls constructors."""

from __future__ import annotations

from mesm_core.build.data import (
    Split,
    SplitQueries,
    build_decoding,
    build_features,
    build_framing,
    build_shortening,
    build_split,
    data_files,
    data_paths,
    evaluation_settings,
    metric_settings,
    read_queries,
)
from mesm_core.build.model import (
    ENDPOINT_CHANNELS,
    build_criterion,
    build_model,
    build_trained,
    load_matching,
    refuse_larger,
    refuse_misfits,
)
from mesm_core.build.paths import Paths
from mesm_core.build.text import (
    build_sentences,
    build_text,
    build_text_from_state,
    build_text_to_ask,
    with_counted_words,
)
from mesm_core.devices import build_device

__all__ = [
    "ENDPOINT_CHANNELS",
    "Paths",
    "Split",
    "SplitQueries",
    "build_criterion",
    "build_decoding",
    "build_device",
    "build_features",
    "build_framing",
    "build_model",
    "build_sentences",
    "build_shortening",
    "build_split",
    "build_text",
    "build_text_from_state",
    "build_text_to_ask",
    "build_trained",
    "data_files",
    "data_paths",
    "evaluation_settings",
    "load_matching",
    "metric_settings",
    "read_queries",
    "refuse_larger",
    "refuse_misfits",
    "with_counted_words",
]
