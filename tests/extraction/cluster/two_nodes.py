"""Runs a Ray cluster of two nodes with one core each: ``FOLDER``, for its files.

Prints the address, and the id of the second node. A line on standard input kills the second node; the end of the input
ends the cluster.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

STORE_BYTES = 80 * 2**20


def main(folder: str) -> None:
    """Run the cluster."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
    os.environ |= {**quiet, "RAY_TMPDIR": folder}
    (Path(folder) / "ray").mkdir(exist_ok=True)  # the cluster notes its address there
    from ray.cluster_utils import Cluster

    usual = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**usual, "include_dashboard": False, "temp_dir": folder})
    second = cluster.add_node(**usual)
    print(cluster.address, second.node_id, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
