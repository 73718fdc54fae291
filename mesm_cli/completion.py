"""Shell completion of option values. Does not import torch, so that it is fast."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

RUNS = Path("runs")
CONFIG, FAMILY = "config.json", "family.json"
ZERO_SHOT = "zero-shot"
CHECKPOINTS = ("best.pt", "last.pt")
PRECISIONS = ("fp32", "tf32", "bf16")


def presets(incomplete: str) -> list[str]:
    """Return the names of the presets."""
    from mesm_core.config.load import preset_names

    return _starting(incomplete, preset_names())


def precisions(incomplete: str) -> list[str]:
    """Return the precisions of matrix products."""
    return _starting(incomplete, PRECISIONS)


def settings(incomplete: str) -> list[str]:
    """Return the keys of the settings, each followed by ``=``."""
    from mesm_core.config.load import known_keys

    return _starting(incomplete, [f"{key}=" for key in known_keys()])


def runs(incomplete: str) -> list[str]:
    """Return the runs and families below ./runs, or else matching folders."""
    return _starting(incomplete, map(str, _runs())) or _folders(incomplete)


def checkpoints(incomplete: str) -> list[str]:
    """Return the checkpoints of the runs below ./runs, or else matching files and folders."""
    found = [str(run / name) for run in _runs() for name in CHECKPOINTS if (run / name).is_file()]
    return _starting(incomplete, found) or [*_folders(incomplete), *_files(incomplete)]


def retrievers(incomplete: str) -> list[str]:
    """Return the checkpoints and zero-shot."""
    return _starting(incomplete, [ZERO_SHOT]) + checkpoints(incomplete)


def _runs() -> list[Path]:
    patterns = (f"*/{CONFIG}", f"*/{FAMILY}", f"*/*/{CONFIG}")
    try:
        return sorted(path.parent for pattern in patterns for path in RUNS.glob(pattern))
    except OSError:
        return []


def _folders(incomplete: str) -> list[str]:
    return [f"{path}/" for path in _beginning(incomplete) if path.is_dir()]


def _files(incomplete: str) -> list[str]:
    return [str(path) for path in _beginning(incomplete) if path.is_file()]


def _beginning(incomplete: str) -> list[Path]:
    folder, _, name = incomplete.rpartition("/")
    place = Path(f"{folder}/" if "/" in incomplete else ".")
    try:
        return sorted(path for path in place.iterdir() if path.name.startswith(name))
    except OSError:
        return []


def _starting(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
