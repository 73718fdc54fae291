"""Every preset, with a tiny model."""

from __future__ import annotations

from pathlib import Path

from mesm_core.config.load import load_config
from mesm_core.config.schema import Config
from tests.model.made import DIM, TEXT

PRESETS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))
TINY = (
    f"model.video_dim={DIM}",
    f"model.text_dim={TEXT}",
    "model.hidden_dim=16",
    "model.heads=4",
    "model.dim_feedforward=24",
    "model.slots=3",
    "text.vocab_size=15",
)


def preset_config(name: str, *overrides: str) -> Config:
    """Return a preset with a tiny model."""
    required = ("dataset.train=x.jsonl", 'dataset.eval=["x.jsonl"]') if name == "jsonl" else ()
    return load_config(name, overrides=[*TINY, *required, *overrides])
