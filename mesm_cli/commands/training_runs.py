"""Carries out the plan of ``mesm train``: one run, several processes for one run, or a family."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from mesm_cli import render
from mesm_cli.commands import own_videos
from mesm_cli.commands.training_plan import Plan, TrainOptions

if TYPE_CHECKING:
    from pathlib import Path

    from mesm_core.training.repeat import Repeat


def carry_out(plan: Plan, asked: TrainOptions) -> int:
    """Train what was planned, and return the exit code."""
    from mesm_cli.commands.training_family import train_family, train_member

    if asked.member is not None:
        return train_member(plan.directory, asked.member, device=asked.device)
    if asked.gpus is not None and asked.gpus > 1:
        return _launch(asked.gpus, plan, asked)
    _prepare(plan, asked)
    if plan.seeds is not None:
        return train_family(plan, plan.seeds, asked)
    return _train(plan, asked)


def _prepare(plan: Plan, asked: TrainOptions) -> None:
    """Check that all data are there, and extract missing features of the user's videos."""
    from mesm_core.build.ready import require_ready

    settings, paths, device, skip_missing = plan.settings, plan.paths, asked.device, plan.skip_missing
    if settings.dataset.videos:
        require_ready(settings, paths, device=device, skip_missing=skip_missing, features=False)
        splits = (settings.dataset.train, *settings.select_splits)
        own_videos.extract_missing(settings, paths, splits, device=device, skip_missing=skip_missing)
    require_ready(settings, paths, device=device, skip_missing=skip_missing)


def _train(plan: Plan, asked: TrainOptions) -> int:
    """Train one run, alone or as one of the processes that torchrun started, and return the exit code."""
    from mesm_cli.commands.training_display import display_training
    from mesm_core.build import build_device
    from mesm_core.processes import join_team, leave_team
    from mesm_core.training.directory import claimed, prepare_directory
    from mesm_core.training.run import Run

    team, where = join_team(build_device(asked.device))
    say = render.note if asked.json else render.say
    try:
        if plan.repeat is not None and team.is_main:
            warn_of_circumstances(plan.repeat, device=str(where), processes=team.world)
        run = Run.open(
            plan.settings,
            plan.paths,
            plan.directory,
            device=where,
            skip_missing=plan.skip_missing,
            resume=plan.resume,
            init=plan.init,
            team=team,
        )
        with claimed(plan.directory) if team.is_main else nullcontext():
            if team.is_main and not plan.resume:
                prepare_directory(plan.directory, overwrite=asked.overwrite)
            result, code = display_training(run, human=say if team.is_main else lambda _: None)
    finally:
        leave_team()
    if plan.repeat is not None and team.is_main and not code:
        result["same_weights"] = _compare(plan, plan.repeat)
    if asked.json and team.is_main:
        render.data(result)
    return code


def warn_of_circumstances(repeat: Repeat, *, device: str, processes: int = 1, parallel: int = 1) -> None:
    """Warn of everything besides settings and data in which a repeated run differs and that may change the results."""
    import torch

    from mesm_core.training.repeat import other_circumstances

    threads = max(torch.get_num_threads() // parallel, 1)
    for difference in other_circumstances(repeat, device=device, processes=processes, threads=threads):
        render.warn(f"{repeat.folder} was trained otherwise: {difference}.")


def _compare(plan: Plan, repeat: Repeat) -> bool | None:
    """Say whether the best weights are those of the repeated run; None if it has none."""
    from mesm_core.training.directory import BEST
    from mesm_core.training.repeat import same_weights

    ours, theirs = plan.directory / BEST, repeat.folder / BEST
    if not ours.is_file() or not theirs.is_file():
        return None
    same = same_weights(ours, theirs)
    render.note(f"The best weights are {'exactly' if same else 'not'} those of {theirs}.")
    return same


def compare_family(directory: Path, repeat: Repeat) -> dict[str, bool]:
    """Say whether the best weights are those of the repeated family; return the same by seed."""
    from mesm_core.training.directory import BEST, member_folder
    from mesm_core.training.repeat import same_weights

    found = {}
    for seed in repeat.seeds:
        ours, theirs = (member_folder(folder, seed) / BEST for folder in (directory, repeat.folder))
        if ours.is_file() and theirs.is_file():
            found[str(seed)] = same_weights(ours, theirs)
    if found:
        same = sum(found.values())
        render.note(f"The best weights are exactly those of {repeat.folder} with {same} of {len(found)} seeds.")
    return found


def _launch(gpus: int, plan: Plan, asked: TrainOptions) -> int:
    """Run this command in one process for each GPU, with torch's elastic launcher, and return the exit code.

    This process extracts missing features first.

    Raises:
        DeviceError: the machine has fewer GPUs.
    """
    from mesm_core.processes import launch, require_gpus

    require_gpus(gpus)
    words = sys.argv[1:]
    place = next(number for number, word in enumerate(words) if word.startswith("--gpus"))
    after = place + (1 if "=" in words[place] else 2)
    words = [*words[:place], *words[after:]]
    if plan.settings.dataset.videos:
        _prepare(plan, asked)
        if plan.backbones and "--backbone" not in " ".join(words):
            words += [word for name in plan.backbones for word in ("--backbone", name)]
    return launch("mesm_cli.app", words, processes=gpus)
