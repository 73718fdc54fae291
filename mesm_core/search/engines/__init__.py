"""The table of engines, one line each. An engine is imported when it is first opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mesm_core.errors import ConfigError, DataError, did_you_mean, listing
from mesm_core.search.engines.protocol import Engine, SegmentHit
from mesm_core.search.manifest import HINT, Manifest, State

__all__ = ["ENGINES", "Engine", "SegmentHit", "new_state", "open_engine"]

Open = Callable[[Path, State, int], Engine]


def _exact(folder: Path, state: State, width: int) -> Engine:
    from mesm_core.search.engines.exact import ExactEngine

    return ExactEngine(folder / "vectors", state, width=width)


ENGINES: dict[str, Open] = {
    "exact": _exact,
}


def new_state(name: str, uri: str | None, folder: Path) -> State:
    """Return the state of a new engine without segments.

    Args:
        uri: where its data are, if it has a server or a file of its own; folder: of the index.

    Raises:
        ConfigError: no engine has that name, or this engine has no URI.
    """
    _refuse_unknown(name)
    if uri is not None and name == "exact":
        raise ConfigError(f"The engine {name} keeps its data in the index: it has no URI.", hint="Leave out --uri.")
    return {} if uri is None else {"uri": uri}


def open_engine(manifest: Manifest, folder: Path) -> Engine:
    """Return the engine of an index in a folder, with the state in its manifest.

    Raises:
        ConfigError: no engine has that name, or its package is not installed; DataError: its data are damaged;
            OutputError: it cannot be reached.
    """
    _refuse_unknown(manifest.engine, where=f"{folder}: ")
    try:
        return ENGINES[manifest.engine](folder, manifest.state, manifest.width)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The manifest of {folder} is damaged: the state of its engine is not valid.", hint=HINT
        ) from error


def _refuse_unknown(name: str, *, where: str = "") -> None:
    if name not in ENGINES:
        raise ConfigError(
            f"{where}No engine is called '{name}'.{did_you_mean(name, ENGINES)}", hint=f"Known: {listing(ENGINES)}."
        )
