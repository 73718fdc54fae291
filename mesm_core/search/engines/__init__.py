"""The table of engines, one line each. An engine is imported when it is first opened."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from mesm_core.errors import ConfigError, DataError, did_you_mean, listing
from mesm_core.search.engines.protocol import Engine, SegmentHit
from mesm_core.search.manifest import HINT, Manifest, State

__all__ = ["ENGINES", "Engine", "SegmentHit", "new_state", "open_engine"]

ENGINES = {
    "exact": "mesm_core.search.engines.exact:ExactEngine",
    "milvus": "mesm_core.search.engines.milvus:MilvusEngine",
}
"""The module and the class of each engine."""


def new_state(name: str, uri: str | None) -> State:
    """Return the state of a new engine without segments.

    Args:
        uri: where its data are, if it has a server or a file of its own.

    Raises:
        ConfigError: no engine has that name, its package is not installed, or it has no URI.
    """
    return _find(name).start(uri)


def open_engine(manifest: Manifest, folder: Path) -> Engine:
    """Return the engine of an index in a folder, with the state in its manifest.

    Raises:
        ConfigError: no engine has that name, or its package is not installed; DataError: its data are damaged;
            OutputError: it cannot be reached.
    """
    engine = _find(manifest.engine, where=f"{folder}: ")
    try:
        return engine(folder, manifest.state, width=manifest.width)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"The manifest of {folder} is damaged: the state of its engine is not valid.", hint=HINT
        ) from error


def _find(name: str, *, where: str = "") -> type[Engine]:
    if name not in ENGINES:
        raise ConfigError(
            f"{where}No engine is called '{name}'.{did_you_mean(name, ENGINES)}", hint=f"Known: {listing(ENGINES)}."
        )
    module, class_ = ENGINES[name].split(":")
    found: type[Engine] = getattr(import_module(module), class_)
    return found
