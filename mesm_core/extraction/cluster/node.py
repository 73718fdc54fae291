"""A worker on a node: it hashes videos and extracts their features, and stores nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from mesm_core.backbones.protocol import Backbone, Sampler, VideoInfo
from mesm_core.backbones.registry import build_backbone
from mesm_core.devices import build_device
from mesm_core.errors import DeviceError
from mesm_core.extraction.pipeline import Extracted, Failed, Frames, extract
from mesm_core.extraction.processes import Share
from mesm_core.extraction.sources import VideoFile, content_hash
from mesm_core.version import __version__


class NodeWorker:
    """Extracts videos with its own networks. Several threads may call it at once; batches are encoded in turn."""

    def __init__(self) -> None:
        self._backbones: dict[str, Backbone] = {}

    def open(self, version: str, line: str, threads: int) -> dict[str, str]:
        """Build the networks.

        Args:
            version: of mesm on the driver; line: a ``Share`` as JSON, for its networks and settings; threads: of torch.

        Returns:
            The hash of the weights of each backbone.

        Raises:
            DeviceError: the versions of mesm differ, or there is no such device; FeatureError: a backbone cannot be
                built.
        """
        if version != __version__:
            raise DeviceError(
                f"mesm is {__version__} here and {version} where the command runs.",
                hint="Install the same version of mesm on every node.",
            )
        torch.set_num_threads(threads)
        self._share = share = Share.from_json(line)
        device, turn = build_device(share.device), threading.Lock()
        for name, path in share.backbones.items():
            built = build_backbone(name, weights=path, device=device, precision=share.settings.precision)  # type: ignore[arg-type]
            self._backbones[name] = _InTurn(built, turn)
        return {name: backbone.weights_hash for name, backbone in self._backbones.items()}

    def content(self, path: Path) -> str:
        """Return the SHA-256 of a video file.

        Raises:
            DataError: the file cannot be read.
        """
        return content_hash(path)

    def extract(self, video: VideoFile, names: Sequence[str]) -> tuple[Extracted | Failed, int]:
        """Return the features of a video by the named backbones, or why there are none, and the number of frames."""
        events = extract(
            [video],
            [[self._backbones[name] for name in names]],
            settings=self._share.settings,
            batch_size=self._share.batch_size,
            decoders=1,
        )
        frames, result = 0, None
        for event in events:
            if isinstance(event, Frames):
                frames += event.count
            else:
                result = event
        assert result is not None
        return result, frames


class _InTurn:
    """A backbone that encodes one batch at a time, so that threads do not compete for the same cores."""

    def __init__(self, backbone: Backbone, turn: threading.Lock) -> None:
        self.name, self.width, self.weights_hash = backbone.name, backbone.width, backbone.weights_hash
        self._backbone, self._turn = backbone, turn

    def picture_seconds(self, clip_len: Fraction) -> Fraction:
        return self._backbone.picture_seconds(clip_len)

    def sampler(self, clip_len: Fraction, video: VideoInfo) -> Sampler:
        return self._backbone.sampler(clip_len, video)

    def encode(self, samples: np.ndarray) -> np.ndarray:
        with self._turn:
            return self._backbone.encode(samples)
