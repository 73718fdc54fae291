"""Loads a checkpoint's retriever and its text encoder, for videos outside its dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mesm_core.build import data_paths
from mesm_core.build.encoders import find_encoder
from mesm_core.checkpoint import Checkpoint
from mesm_core.config.load import DATA_ROOT, Layer, resolve
from mesm_core.config.schema import Config
from mesm_core.inference.predictor import MomentRetriever


def settings_of(checkpoint: Checkpoint) -> Config:
    """Return a checkpoint's settings.

    Raises:
        ConfigError: the settings are not valid.
    """
    return resolve([Layer("checkpoint", checkpoint.config)])


def text_file(checkpoint: Checkpoint, given: Path | None, root: Path | None) -> tuple[Path | None, bool]:
    """Return the file of CLIP text weights that a checkpoint needs, and whether CLIP's own archive replaces it.

    Checkpoints with word vectors contain them and need no file. Others use the given file, else the file used in
    training, else the one in the data folder.

    Args:
        root: the data folder; default: ./data.
    """
    config = settings_of(checkpoint)
    if find_encoder(config.text.encoder).portable and checkpoint.text:
        return None, False
    if given is not None:
        return given, False
    recorded = checkpoint.text.get("path")
    places = [Path(recorded)] if isinstance(recorded, str) else []
    places.append(data_paths(config, root or DATA_ROOT).text)
    found = next((path for path in places if path.is_file()), None)
    return found, found is None and config.text.encoder == "clip"


def load_trained(checkpoint: Checkpoint, text: Path | None, root: Path | None, *, device: str) -> MomentRetriever:
    """Return the retriever of a checkpoint.

    Args:
        text: file of the text encoder's weights, for a checkpoint that does not contain them; root: the data folder.

    Raises:
        TextError: the text encoder's files are missing or do not fit; CheckpointError: they differ from those of
            training; DeviceError: the device is not available.
    """
    paths = data_paths(settings_of(checkpoint), root or DATA_ROOT)
    paths = paths if text is None else replace(paths, text=text)
    return MomentRetriever.from_checkpoint(checkpoint, device=device, text=text, paths=paths)
