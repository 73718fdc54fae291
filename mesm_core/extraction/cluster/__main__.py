"""The driver of a Ray cluster: ``python -m mesm_core.extraction.cluster``, started by ``processes`` and ``finding``.

Ray runs in this process only: it prints, sets signal handlers, and may end the process that it runs in. The first line
of the input is the address of a cluster to look at, as JSON, or a share to extract.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from typing import IO

from mesm_core.errors import DeviceError, MesmError
from mesm_core.extraction.cache import default_cache
from mesm_core.extraction.cached import Identity
from mesm_core.extraction.cluster.dispatch import Dispatch
from mesm_core.extraction.cluster.finding import AUTO, LOCAL
from mesm_core.extraction.cluster.ray_cluster import Connection, RayCluster
from mesm_core.extraction.parts import Parts
from mesm_core.extraction.pipeline import Extracted, Failed
from mesm_core.extraction.processes import Share
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.work import Done, Event, missing, refuse_name, store
from mesm_core.extraction.worker import end_with, error_line, send_events


def find(address: str) -> dict[str, str | int]:
    """Return the address of a cluster, and how many cores and GPUs it has; of ``local``, if there is none.

    Raises:
        DeviceError: Ray cannot connect.
    """
    try:
        connection = Connection(address)
    except DeviceError as error:
        if address == AUTO and isinstance(error.__cause__, ConnectionError):
            return {"address": LOCAL, "cores": 0, "gpus": 0}
        raise
    nodes = connection.nodes()
    found = {name: sum(int(node["Resources"].get(name, 0)) for node in nodes) for name in ("CPU", "GPU")}
    where = address if "://" in address else connection.address
    connection.close()
    return {"address": where, "cores": found["CPU"], "gpus": found["GPU"]}


def extract(share: Share, connection: Connection) -> Iterator[Event]:
    """Extract the videos of a share on the nodes, store their features as parts, and yield events.

    Raises:
        MesmError: a worker cannot be built, no node is left, or a part could not be written.
    """
    settings, parts = share.settings, Parts(share.folder)
    networks = {name: Identity(name, weights_hash) for name, weights_hash in share.hashes.items()}
    cache = default_cache() if share.cached else None

    def wanted(video: VideoFile, content: str) -> list[str]:
        refuse_name(video)
        found = missing(
            video, content, list(networks.values()), settings=settings, parts=parts, known=share.known, cache=cache
        )
        return [network.name for network in found]

    def keep(event: Extracted, content: str) -> Done | Failed:
        return store(event, content, networks, settings, parts)

    cluster = RayCluster(connection, share)
    yield from Dispatch(
        share.videos, cluster, hashes=share.hashes, missing=wanted, store=keep, most=share.decoders
    ).run()


def main(source: IO[str], target: IO[str]) -> None:
    """Look at a cluster, or extract a share, and write the result or the events to ``target``."""
    line = source.readline()
    try:
        if not line.startswith("{"):
            target.write(json.dumps(find(json.loads(line))) + "\n")
            return
        share = Share.from_json(line)
        connection = Connection(share.ray or LOCAL)
    except MesmError as error:
        target.write(error_line(error) + "\n")
        return
    end_with(source, at_end=connection.close)
    try:
        send_events(extract(share, connection), target)
    except Exception:
        if not connection.closed:  # else the input has ended, and this process is about to exit
            raise
    finally:
        connection.close()


def take_streams() -> tuple[IO[str], IO[str]]:
    """Return standard output and standard error, to which Ray prints nothing from here on."""
    taken = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    return taken


if __name__ == "__main__":
    output, errors = take_streams()
    code = 0
    try:
        main(sys.stdin, output)
    except BaseException:
        traceback.print_exc(file=errors)
        code = 1
    output.flush()
    errors.flush()
    os._exit(code)  # Ray's threads, and the one that waits for the end of the input, do not end by themselves
