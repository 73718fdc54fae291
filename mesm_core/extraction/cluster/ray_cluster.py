"""The nodes of a Ray cluster, and workers on them; imported by the driver's process only."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mesm_core.errors import DeviceError, MesmError
from mesm_core.extraction.cluster.dispatch import Answer, Lost, Place, Value
from mesm_core.extraction.cluster.finding import LOCAL
from mesm_core.extraction.cluster.node import NodeWorker
from mesm_core.extraction.processes import Share
from mesm_core.extraction.sources import VideoFile
from mesm_core.version import __version__

CORES = 4
"""Most cores of a worker on the CPU; each worker has its own networks."""
STORE_BYTES = 512 * 2**20
LOOK_SECONDS = 2.0
SILENCE_SECONDS = 60.0
CLOSE_SECONDS, CLOSE_OWN_SECONDS = 5.0, 30.0
SETTLE_SECONDS = 8.0
"""Age at which a cluster can be ended. Of a younger one, Ray leaves processes behind that are still being started."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports its use to its makers by default
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray copies the working directory to the nodes
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a call after the end would start another cluster
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning
}


class Connection:
    """A connection to a Ray cluster, or a cluster of this machine that ends with it.

    Args:
        address: host:port, ray://host:port, auto for a cluster that runs on this machine, or local for a new one.

    Attributes:
        closed: whether ``close`` was called.

    Raises:
        DeviceError: Ray cannot connect.
    """

    def __init__(self, address: str) -> None:
        self.closed = False
        self._folder: Path | None = None
        self._closing = threading.Lock()
        os.environ |= _QUIET
        if address == LOCAL:
            # Ray's ports accept calls from the network; with a token only those of this process and its children.
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            self._folder = Path(tempfile.mkdtemp(prefix="mesm-ray-"))
        import ray

        own = {} if self._folder is None else {
            "include_dashboard": False, "object_store_memory": STORE_BYTES, "_temp_dir": str(self._folder)
        }  # fmt: skip
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
        except Exception as error:
            self._remove_folder()
            raise DeviceError(
                f"--ray {address}: {_last_line(error)}",
                hint="Ray and Python must have the same versions on all machines. `ray status` shows the nodes.",
            ) from error
        self._began = time.monotonic()

    @property
    def address(self) -> str:
        """The address at which others can reach the cluster."""
        import ray

        return str(ray.get_runtime_context().gcs_address)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that are alive, as Ray describes them."""
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def close(self) -> None:
        """Disconnect; a cluster that was started ends, and its files are removed. A second call waits for the first."""
        import ray

        with self._closing:
            if self.closed:
                return
            self.closed = True
            if self._folder is not None:
                time.sleep(max(0.0, self._began + SETTLE_SECONDS - time.monotonic()))
            ending = threading.Thread(target=ray.shutdown, daemon=True)  # never ends if the head is gone
            ending.start()
            ending.join(CLOSE_SECONDS if self._folder is None else CLOSE_OWN_SECONDS)
            self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class RayCluster:
    """Workers on the nodes of a Ray cluster: one a GPU, or one a group of up to ``CORES`` cores.

    Args:
        share: networks and settings of the workers, and their device.
    """

    def __init__(self, connection: Connection, share: Share) -> None:
        self._connection = connection
        self._gpus, self._concurrency = share.device != "cpu", share.decoders
        self._line = replace(share, videos=(), known={}).as_json()
        self._nodes, self._seen = connection.nodes(), time.monotonic()
        self._actors: dict[int, tuple[Any, Place]] = {}
        self._asked: dict[Any, tuple[int, VideoFile | None]] = {}
        self._started = 0
        threading.Thread(target=self._look, daemon=True).start()

    def places(self) -> list[Place]:
        """Return the places of all nodes that are alive.

        Raises:
            DeviceError: the head of the cluster has not answered for a minute.
        """
        if time.monotonic() - self._seen > SILENCE_SECONDS:
            raise DeviceError("The head of the Ray cluster does not answer any more.")
        return [place for node in self._nodes for place in places_of(node, gpus=self._gpus, decoders=self._concurrency)]

    def start(self, place: Place) -> int:
        """Start a worker at a place and return its number."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = (
            ray.remote(NodeWorker)
            .options(
                num_cpus=place.cores,
                num_gpus=int(place.gpu),
                max_concurrency=self._concurrency,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            )
            .remote()
        )
        self._started += 1
        self._actors[self._started] = actor, place
        self._asked[actor.open.remote(__version__, self._line, max(place.cores, 1))] = self._started, None
        return self._started

    def stop(self, worker: int) -> None:
        """End a worker, and forget what it was asked."""
        import ray

        actor, _ = self._actors.pop(worker)
        self._asked = {ref: asked for ref, asked in self._asked.items() if asked[0] != worker}
        with suppress(Exception):  # it is gone already
            ray.kill(actor)

    def ask_content(self, worker: int, video: VideoFile) -> None:
        """Ask a worker for the hash of a video."""
        actor, _ = self._actors[worker]
        self._asked[actor.content.remote(video.path)] = worker, video

    def ask_features(self, worker: int, video: VideoFile, names: Sequence[str]) -> None:
        """Ask a worker for the features of a video."""
        actor, _ = self._actors[worker]
        self._asked[actor.extract.remote(video, list(names))] = worker, video

    def answers(self, seconds: float) -> list[Answer]:
        """Return the answers that have arrived; wait up to ``seconds`` for the first.

        Raises:
            ConnectionError: the connection was closed.
        """
        import ray

        if self._connection.closed:
            raise ConnectionError("The connection to Ray is closed.")
        arrived = []
        if self._asked:
            arrived, _ = ray.wait(list(self._asked), timeout=seconds)
        else:
            time.sleep(seconds)
        found = [Answer(*self._asked.pop(ref), _value(ref)) for ref in arrived]
        alive = {node["NodeID"] for node in self._nodes}
        # An object that was on a lost node may never arrive, not even as an error.
        gone = [number for number, (_, place) in self._actors.items() if place.node not in alive]
        return found + [Answer(number, None, Lost("its node is gone")) for number in gone]

    def _look(self) -> None:
        """Keep the list of nodes current. The call waits for ever if the head is gone."""
        while not self._connection.closed:
            with suppress(Exception):
                self._nodes, self._seen = self._connection.nodes(), time.monotonic()
            time.sleep(LOOK_SECONDS)


def places_of(node: dict[str, Any], *, gpus: bool, decoders: int) -> list[Place]:
    """Return the places of a node: its GPUs, or groups of its cores of about the same size.

    Args:
        node: its NodeID, NodeManagerHostname and Resources; decoders: decoding threads of a worker on a GPU.
    """
    cores = int(node["Resources"].get("CPU", 0))
    if gpus:
        number = int(node["Resources"].get("GPU", 0))
        each = min(cores // max(number, 1), decoders + 1)
    else:
        number = -(-cores // CORES)
        each = cores // max(number, 1)
    return [Place(node["NodeID"], node["NodeManagerHostname"], index, each, gpus) for index in range(number)]


def _value(ref: Any) -> Value:
    """Return what a worker returned, the error that it raised, or that it was lost.

    Raises:
        Exception: the worker raised one that is no MesmError, which is a fault.
    """
    import ray

    try:
        value: Value = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MesmError):
            return error.cause
        raise
    except ray.exceptions.OutOfMemoryError:
        return Lost("its node ran out of memory")
    except ray.exceptions.RayError as error:
        return Lost(_last_line(error))
    return value


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
