"""Finds a Ray cluster, and the kind of device that its nodes have."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from mesm_core.devices import build_device
from mesm_core.errors import ConfigError, DeviceError
from mesm_core.extraction.processes import RAY_DRIVER, read_reply

AUTO, LOCAL = "auto", "local"
VARIABLE = "RAY_ADDRESS"
CONNECT_SECONDS = 5.0
FIND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class FoundCluster:
    """A cluster; ``address``: host:port, ray://host:port, or ``local`` for one that must be started; ``device``: cpu or
    cuda, of all workers."""

    address: str
    device: str


def find_cluster(address: str, device: str) -> FoundCluster:
    """Return the cluster at an address, after connecting to it once.

    Args:
        address: host:port of the head; ray://host:port of its server for clients; or ``auto``, for ``$RAY_ADDRESS``,
            else a cluster that runs on this machine, else a new one on this machine.
        device: auto, cpu or cuda. ``auto`` is CUDA if the cluster has GPUs.

    Raises:
        ConfigError: the address is none, or Ray is not installed; DeviceError: no cluster answers, or it has no
            processors, or no GPUs although ``device`` is cuda.
    """
    place = checked_address(address, os.environ)
    if device not in {"auto", "cpu", "cuda"}:
        build_device(device)
        raise DeviceError(f"--device {device} with --ray: Ray chooses the GPUs.", hint="Use auto, cpu or cuda.")
    if find_spec("ray") is None:
        raise ConfigError("--ray needs the package ray, which is not installed.", hint="pip install 'mesm[ray]'")
    if place != AUTO:
        _knock(place)
    found = _ask(place)
    if found["address"] == LOCAL:
        return FoundCluster(LOCAL, build_device(device).type)
    if device == "cuda" and not found["gpus"]:
        raise DeviceError(f"The Ray cluster at {found['address']} has no GPU.", hint="Use --device cpu.")
    if not found["gpus"] and not found["cores"]:
        raise DeviceError(f"The Ray cluster at {found['address']} has no processors.", hint="`ray status` shows them.")
    return FoundCluster(str(found["address"]), "cuda" if found["gpus"] and device != "cpu" else "cpu")


def checked_address(address: str, environment: Mapping[str, str]) -> str:
    """Return the address to connect to: of the variable, if it is set and ``address`` is ``auto``.

    Raises:
        ConfigError: it is not auto, host:port or ray://host:port.

    >>> checked_address("auto", {}), checked_address("auto", {"RAY_ADDRESS": "node1:6379"})
    ('auto', 'node1:6379')
    """
    given = environment.get(VARIABLE, "") if address == AUTO else ""
    what = f"${VARIABLE}={given}" if given else f"--ray {address}"
    place = given or address
    if place != AUTO and _host_and_port(place) is None:
        raise ConfigError(
            f"{what} is no address of a Ray cluster.",
            hint="Give auto, HOST:PORT of the head, e.g. node1:6379, or ray://HOST:PORT, e.g. ray://node1:10001.",
        )
    return place


def _host_and_port(address: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"(?:ray://)?(?:\[([0-9A-Fa-f:.%]+)\]|([\w.-]+)):(\d{1,5})", address)
    if match is None or not 0 < int(match[3]) < 65536:
        return None
    return match[1] or match[2], int(match[3])


def _knock(address: str) -> None:
    """Raise DeviceError if nothing listens at an address. Ray itself would wait for minutes."""
    place = _host_and_port(address)
    assert place is not None
    try:
        socket.create_connection(place, timeout=CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise DeviceError(
            f"No Ray cluster answers at {address}: {getattr(error, 'strerror', None) or error}.",
            hint="Is the head running (`ray start --head`), and is its port open to this machine?",
        ) from error


def _ask(address: str) -> dict[str, str | int]:
    """Return the reply of a process that connects to the cluster."""
    command = [sys.executable, "-m", RAY_DRIVER]
    try:
        done = subprocess.run(
            command, input=json.dumps(address) + "\n", stdout=subprocess.PIPE, text=True, check=False,
            timeout=FIND_SECONDS, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"The Ray cluster at {address} did not answer within {FIND_SECONDS:.0f} s.",
            hint="`ray status` shows its state; `ray stop` removes what is left of one on this machine.",
        ) from error
    if not done.stdout:
        raise DeviceError(f"--ray {address}: the process that connects ended with code {done.returncode}.")
    return read_reply(done.stdout, "the process that connects to Ray")
