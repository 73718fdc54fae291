"""mesm: video moment retrieval. Public names are loaded on first use, so that importing the package is fast."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mesm_core.version import __version__

if TYPE_CHECKING:
    from mesm_core.config.load import load_config
    from mesm_core.config.schema import Config
    from mesm_core.errors import MesmError
    from mesm_core.inference.answers import Answer, Moment, VideoQueries
    from mesm_core.inference.locate import Located, Locator, locate
    from mesm_core.inference.predictor import MomentRetriever
    from mesm_core.inference.retriever import Retriever
    from mesm_core.inference.zero_shot_retriever import ZeroShotRetriever
    from mesm_core.types import Prediction, Query

_HOMES = {
    "Config": "mesm_core.config.schema",
    "MesmError": "mesm_core.errors",
    "Prediction": "mesm_core.types",
    "Answer": "mesm_core.inference.answers",
    "VideoQueries": "mesm_core.inference.answers",
    "Located": "mesm_core.inference.locate",
    "Locator": "mesm_core.inference.locate",
    "Moment": "mesm_core.inference.answers",
    "MomentRetriever": "mesm_core.inference.predictor",
    "Query": "mesm_core.types",
    "Retriever": "mesm_core.inference.retriever",
    "ZeroShotRetriever": "mesm_core.inference.zero_shot_retriever",
    "locate": "mesm_core.inference.locate",
    "load_config": "mesm_core.config.load",
}

__all__ = [
    "Answer",
    "Config",
    "Located",
    "Locator",
    "MesmError",
    "Moment",
    "MomentRetriever",
    "Prediction",
    "Query",
    "Retriever",
    "VideoQueries",
    "ZeroShotRetriever",
    "__version__",
    "load_config",
    "locate",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
