"""The driver of a cluster, which appends to the file ``$ASKED`` each video that it has extracted, and the node."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mesm_core.extraction.cluster.__main__ import main, take_streams
from mesm_core.extraction.cluster.ray_cluster import RayCluster
from mesm_core.extraction.sources import VideoFile

ask_features = RayCluster.ask_features


def counted(self: RayCluster, worker: int, video: VideoFile, names: Sequence[str]) -> None:
    """Note the video, and have it extracted."""
    with Path(os.environ["ASKED"]).open("a") as file:
        file.write(f"{self._actors[worker][1].node} {video.name}\n")
    ask_features(self, worker, video, names)


if __name__ == "__main__":
    RayCluster.ask_features = counted  # type: ignore[method-assign]
    output, errors = take_streams()
    sys.stderr = errors
    main(sys.stdin, output)
    output.flush()
    os._exit(0)
