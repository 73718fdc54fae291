"""The runs of a family: how each is begun or resumed, in this process or in child processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mesm_core.children import Command
from mesm_core.data.features import FeatureStore
from mesm_core.official.checkpoint import load_any_checkpoint
from mesm_core.training.directory import prepare_directory
from mesm_core.training.family import Family
from mesm_core.training.run import Run


def open_member(family: Family, seed: int, *, device: torch.device, features: FeatureStore | None = None) -> Run:
    """Return a run of a family, resumed from its newest checkpoint if it has one.

    Args:
        features: open features of another run of the family.

    Raises:
        MesmError: the data or the checkpoint cannot be used.
    """
    folder = family.folder_of(seed)
    resume = any(folder.glob("last*.pt"))
    if not resume:
        prepare_directory(folder, overwrite=True)
    return Run.open(
        family.config_of(seed),
        family.paths,
        folder,
        device=device,
        skip_missing=family.skip_missing,
        resume=resume,
        init=None if resume or family.init is None else load_any_checkpoint(family.init),
        features=features,
    )


def member_commands(
    family: Family,
    program: Sequence[str],
    *,
    device: str,
    threads: int,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Command]:
    """Return the commands that train the runs of a family that are not finished, one for each, by seed.

    Args:
        program: the words of ``mesm train``; device: as on the command line; threads: of this process, divided among
            the runs that train at once; environment: further variables.
    """
    seeds = [seed for seed in family.seeds if not family.is_finished(seed)]
    devices = spread_devices(device, len(seeds), gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0)
    own = {"OMP_NUM_THREADS": str(max(threads // family.parallel, 1)), "PYTHONUNBUFFERED": "1"}
    return {
        str(seed): Command([*program, *_options(family.folder, seed, place)], {**(environment or {}), **own})
        for seed, place in zip(seeds, devices, strict=True)
    }


def spread_devices(device: str, runs: int, *, gpus: int) -> list[str]:
    """Return the device of each run: the GPUs of this machine in turn, unless one device is named.

    >>> spread_devices("auto", 3, gpus=2)
    ['cuda:0', 'cuda:1', 'cuda:0']
    >>> spread_devices("auto", 2, gpus=0), spread_devices("cuda:1", 2, gpus=2)
    (['auto', 'auto'], ['cuda:1', 'cuda:1'])
    """
    if gpus and device in ("auto", "cuda"):
        return [f"cuda:{number % gpus}" for number in range(runs)]
    return [device] * runs


def _options(folder: Path, seed: int, device: str) -> list[str]:
    return ["--resume", str(folder), "--member", str(seed), "--device", device]
