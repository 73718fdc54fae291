"""A trained model that answers queries about videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mesm_core.build import (
    Paths,
    build_decoding,
    build_device,
    build_framing,
    build_text,
    build_text_from_state,
    build_trained,
    data_paths,
)
from mesm_core.config.load import Layer, resolve
from mesm_core.config.schema import Config
from mesm_core.data.collate import Item, collate
from mesm_core.data.features import FeatureStore
from mesm_core.errors import DataError, TextError
from mesm_core.inference.decode import decode
from mesm_core.model.mesm import Mesm
from mesm_core.official.checkpoint import load_any_checkpoint
from mesm_core.text.encoder import TextEncoder
from mesm_core.training.checkpoint import Checkpoint
from mesm_core.types import Prediction, Query


class Predictor:
    """Answers queries with a checkpoint's model.

    Args:
        config: the run's settings.
        model: trained, in evaluation mode.
        text: the checkpoint's text encoder.
        device: where the model runs.
    """

    def __init__(self, *, config: Config, model: Mesm, text: TextEncoder, device: torch.device) -> None:
        self.config = config
        self.model = model.to(device)
        self.text = text
        self.device = device

    @classmethod
    def load(cls, path: Path | str, *, device: str = "auto") -> Predictor:
        """Return the predictor of a checkpoint that ``mesm train`` wrote.

        Raises:
            CheckpointError: the file is not a checkpoint of ours; DeviceError: the device is not there.
        """
        return cls.from_checkpoint(load_any_checkpoint(Path(path)), device=device)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        config: Config | None = None,
        device: str = "auto",
        text: Path | None = None,
        paths: Paths | None = None,
    ) -> Predictor:
        """Return the predictor of a loaded checkpoint.

        Args:
            config: settings to use instead of its own; text: where CLIP's weights lie, if they were moved.
            paths: where the text encoder's files lie, for a published checkpoint, which does not hold it.

        Raises:
            TextError: the text encoder's files are missing or do not fit.
        """
        config = config or resolve([Layer("checkpoint", checkpoint.config)])
        where = build_device(device)
        if checkpoint.text:
            encoder = build_text_from_state(config, checkpoint.text, device=where, path=text)
        else:
            encoder = build_text(config, paths or data_paths(config, Path("data")), device=where)
        model = build_trained(config, checkpoint.model, encoder)
        return cls(config=config, model=model, text=encoder, device=where)

    def locate(
        self,
        features: FeatureStore,
        vid: str,
        queries: Sequence[str],
        *,
        duration: float,
        independent: bool = False,
    ) -> list[Prediction]:
        """Return one prediction a query, in order: windows in seconds by falling score, saliency a frame.

        Windows end at the video's end at the latest.

        Args:
            features: holds the video; vid: which one; duration: its length in seconds.
            queries: sentences; together they form one group unless ``independent``.

        Raises:
            TextError: a query is empty, or there is none; FeatureError: the video is missing or does not fit;
            DataError: the duration is not positive.
        """
        if not queries:
            raise TextError("No query was given.", hint='Put one in quotes: "a person opens the door".')
        if not duration > 0 or not np.isfinite(duration):
            raise DataError(f"The duration is {duration:g} seconds; it must be positive.")
        items = [Item(Query(None, vid, query, duration), self.text.features(query)) for query in queries]
        groups = [[item] for item in items] if independent else [items]
        video = {vid: features.get(vid)}
        decoding = build_decoding(self.config)
        answers: list[Prediction] = []
        with torch.inference_mode():
            for group in groups:
                batch = collate([group], video, framing=build_framing(self.config), rng=None).to(self.device)
                answers += decode(self.model(batch.inputs), batch, decoding)
        return [_within(answer, duration) for answer in answers]


def _within(prediction: Prediction, duration: float) -> Prediction:
    windows = prediction.windows.copy()
    windows[:, :2] = np.minimum(windows[:, :2], duration)
    return replace(prediction, windows=windows)
