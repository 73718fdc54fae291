"""The table of engines, one line each. An engine is imported when it is first opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mesm_core.errors import ConfigError, DataError, did_you_mean, listing
from mesm_core.search.engines.protocol import Engine, SegmentHit
from mesm_core.search.manifest import HINT, Manifest, State

__all__ = ["ENGINES", "Engine", "SegmentHit", "open_engine"]

Open = Callable[[Path, State, int], Engine]


def _exact(folder: Path, state: State, width: int) -> Engine:
    from mesm_core.search.engines.exact import ExactEngine

    return ExactEngine(folder / "vectors", state, width=width)


ENGINES: dict[str, Open] = {
    "exact": _exact,
}


def open_engine(manifest: Manifest, folder: Path) -> Engine:
    """Return the engine of an index in a folder, with the state in its manifest.

    Raises:
        ConfigError: no engine has that name, or its package is not installed; DataError: its data are damaged;
            OutputError: it cannot be reached.
    """
    name = manifest.engine
    if name not in ENGINES:
        raise ConfigError(
            f"{folder}: no engine is called '{name}'.{did_you_mean(name, ENGINES)}", hint=f"Known: {listing(ENGINES)}."
        )
    try:
        return ENGINES[name](folder, manifest.state, manifest.width)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The manifest of {folder} is damaged: the state of its engine is not valid.", hint=HINT
        ) from error
