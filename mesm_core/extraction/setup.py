"""The networks of an extraction and how they run: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mesm_core.backbones.networks import default_precision
from mesm_core.backbones.protocol import Precision
from mesm_core.backbones.registry import build_backbone
from mesm_core.devices import build_device
from mesm_core.extraction.cache import default_cache
from mesm_core.extraction.cluster.finding import FoundCluster, find_cluster
from mesm_core.extraction.parts import Parts
from mesm_core.extraction.processes import Share, process_devices, run_processes
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.shards import Shard
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.work import Event, Known, check_rows, extract_parts


@dataclass(frozen=True)
class Options:
    """Settings of how an extraction runs.

    ``device``: auto, cpu, cuda or cuda:N; ``precision``: fp32, fp16 or bf16, None for the device's default;
    ``batch_size``: samples per batch; ``decoders``: decoding threads per process; ``processes``: number of processes
    on this machine, on CUDA one per GPU; ``shard``: the shard that the videos are, for the names of the files;
    ``ray``: address of the Ray cluster that extracts the videos, or auto; None for this machine.
    """

    device: str = "auto"
    precision: Precision | None = None
    batch_size: int = 16
    decoders: int = 2
    processes: int = 1
    shard: Shard | None = None
    ray: str | None = None


USUAL = Options()
"""The default settings."""


class Setup:
    """The networks of an extraction, built once.

    Args:
        specs: weights file of each backbone, None if it needs none.
        dry: build the networks in this process even if ``options`` has several.

    Attributes:
        backbones: in the order of ``specs``; settings: with the precision that is used; devices: one per process.

    Raises:
        MesmError: a backbone cannot be built or has no rows of this length, a device does not exist, or the Ray cluster
            cannot be reached.
    """

    def __init__(
        self,
        specs: Mapping[str, Path | None],
        *,
        settings: Settings,
        options: Options,
        dry: bool = False,
    ) -> None:
        self.options = options
        self._specs = specs
        self._cluster = None if options.ray is None or dry else find_cluster(options.ray, options.device)
        device = build_device(options.device) if self._cluster is None else torch.device(self._cluster.device)
        self.settings = replace(settings, precision=options.precision or default_precision(device))
        self.devices = process_devices(options.device, options.processes) if self._cluster is None else [device.type]
        # With other processes, this one needs only the identities of the networks.
        in_process = self._cluster is None and (options.processes == 1 or dry)
        self.backbones = [
            build_backbone(
                name,
                weights=path,
                device=device if in_process else torch.device("cpu"),
                precision=options.precision if in_process else "fp32",
            )
            for name, path in self._specs.items()
        ]
        check_rows(self.backbones, settings)

    def extract(
        self, videos: Sequence[VideoFile], folder: Path, *, known: Known, cached: bool = False
    ) -> Iterator[Event]:
        """Store the features of videos that are neither known nor in ``folder`` there, and yield events.

        Args:
            folder: of the parts; cached: take features from the cache of ``mesm locate`` if they are there.

        Raises:
            OutputError: a part could not be written.
        """
        options = self.options
        if self._cluster is not None:
            return run_processes([self._share_of_cluster(self._cluster, videos, folder, known, cached)])
        if options.processes == 1:
            return extract_parts(
                videos,
                self.backbones,
                settings=self.settings,
                parts=Parts(folder),
                known=known,
                batch_size=options.batch_size,
                decoders=options.decoders,
                cache=default_cache() if cached else None,
            )
        shares = [
            Share(
                videos=share,
                backbones=self._specs,
                device=device,
                settings=self.settings,
                folder=folder,
                known={
                    name: {v.name: found[v.name] for v in share if v.name in found} for name, found in known.items()
                },
                batch_size=options.batch_size,
                decoders=options.decoders,
                cached=cached,
            )
            for share, device in zip(_divided(videos, options.processes), self.devices, strict=True)
        ]
        return run_processes([share for share in shares if share.videos])

    def _share_of_cluster(
        self, cluster: FoundCluster, videos: Sequence[VideoFile], folder: Path, known: Known, cached: bool
    ) -> Share:
        """Return the work of the process that drives a cluster: all videos, the longest first."""
        (ordered,) = _divided(videos, 1)
        return Share(
            videos=[VideoFile(video.name, video.path.absolute()) for video in ordered],
            backbones={name: None if path is None else path.absolute() for name, path in self._specs.items()},
            device=cluster.device,
            settings=self.settings,
            folder=folder,
            known=known,
            batch_size=self.options.batch_size,
            decoders=self.options.decoders,
            cached=cached,
            ray=cluster.address,
            hashes={backbone.name: backbone.weights_hash for backbone in self.backbones},
        )


def _divided(videos: Sequence[VideoFile], count: int) -> list[list[VideoFile]]:
    """Return the videos divided into ``count`` parts of about the same size in bytes."""

    def size(video: VideoFile) -> int:
        return video.path.stat().st_size if video.path.is_file() else 0

    ordered = sorted(videos, key=lambda video: (-size(video), video.name))
    return [ordered[number::count] for number in range(count)]
