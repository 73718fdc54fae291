"""The table of engines, one line each. An engine is imported when it is first opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mesm_core.errors import ConfigError, DataError, did_you_mean, listing
from mesm_core.search.engines.protocol import Engine, SegmentHit
from mesm_core.search.manifest import HINT, Manifest, State

__all__ = ["ENGINES", "Engine", "SegmentHit", "new_state", "open_engine"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine: ``open`` returns it for the folder of an index, a state and the width of the vectors; ``start``
    returns the state of a new one for a URI, or raises a ConfigError."""

    open: Callable[[Path, State, int], Engine]
    start: Callable[[str | None], State]


def _exact(folder: Path, state: State, width: int) -> Engine:
    from mesm_core.search.engines.exact import ExactEngine

    return ExactEngine(folder / "vectors", state, width=width)


def _exact_start(uri: str | None) -> State:
    if uri is not None:
        raise ConfigError("The engine exact keeps its data in the index: it has no URI.", hint="Leave out --uri.")
    return {}


def _milvus(folder: Path, state: State, width: int) -> Engine:
    from mesm_core.search.engines.milvus import MilvusEngine

    return MilvusEngine(folder, state, width=width)


def _milvus_start(uri: str | None) -> State:
    from mesm_core.search.engines import milvus

    return milvus.start(uri)


ENGINES: dict[str, Entry] = {
    "exact": Entry(_exact, _exact_start),
    "milvus": Entry(_milvus, _milvus_start),
}


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
    entry = _find(manifest.engine, where=f"{folder}: ")
    try:
        return entry.open(folder, manifest.state, manifest.width)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The manifest of {folder} is damaged: the state of its engine is not valid.", hint=HINT
        ) from error


def _find(name: str, *, where: str = "") -> Entry:
    if name not in ENGINES:
        raise ConfigError(
            f"{where}No engine is called '{name}'.{did_you_mean(name, ENGINES)}", hint=f"Known: {listing(ENGINES)}."
        )
    return ENGINES[name]
