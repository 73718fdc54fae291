"""What ``mesm train`` is asked to do: a new run, a family of runs, a resumed or a repeated one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mesm_cli import formats, render
from mesm_cli.commands import own_videos
from mesm_core.errors import ConfigError
from mesm_core.torchrun import this_process

if TYPE_CHECKING:
    from mesm_core.build import Paths
    from mesm_core.checkpoint import Checkpoint
    from mesm_core.config.schema import Config
    from mesm_core.training.repeat import Repeat
    from mesm_core.training.start import Given


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``mesm train``; see there."""

    dataset: str | None
    config: Path | None
    overrides: Sequence[str]
    given: Given
    name: str
    runs_dir: Path
    seeds: str | None
    parallel: int | None
    resume: Path | None
    like: Path | None
    init: Path | None
    force: bool
    member: int | None
    skip_missing: bool
    overwrite: bool
    device: str
    gpus: int | None
    json: bool

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: the message names them.
        """
        if self.resume is not None and (self.init or self.overwrite):
            raise ConfigError("--resume continues from the weights of the run. Remove --init and --overwrite.")
        if self.resume is not None and self.seeds is not None:
            raise ConfigError("--resume continues the seeds of the family. Remove --seeds.")
        if self.like is not None:
            others = {"--resume": self.resume, "--init": self.init, "--dataset": self.dataset, "--config": self.config}
            given = [option for option, value in others.items() if value is not None]
            if given:
                raise ConfigError(
                    f"--like takes everything from the run. Remove {' and '.join(given)}.",
                    hint="--set changes single settings.",
                )


@dataclass(frozen=True)
class Plan:
    """What to train.

    ``seeds``: those of a family, or None for one run; ``parallel``: runs of a family that train at once; ``init``: the
    checkpoint of the initial weights; ``repeat``: the run that is repeated.
    """

    settings: Config
    paths: Paths
    directory: Path
    backbones: Sequence[str] = ()
    resume: bool = False
    skip_missing: bool = False
    init: Checkpoint | None = None
    seeds: tuple[int, ...] | None = None
    parallel: int = 1
    repeat: Repeat | None = None


def make_plan(asked: TrainOptions) -> Plan:
    """Return what to train. Writes nothing.

    Raises:
        MesmError: options contradict each other, settings are invalid, the folder of a new run is taken, or the data
            of a repeated run have changed.
    """
    asked.check()
    if asked.resume is not None:
        return _checked(_resumed(asked, asked.resume), asked)
    plan = _repeated(asked, asked.like) if asked.like is not None else _new(asked)
    return _checked(plan, asked)


def _resumed(asked: TrainOptions, folder: Path) -> Plan:
    from mesm_core.training.directory import is_family
    from mesm_core.training.family import read_family
    from mesm_core.training.start import Recorded, continued, earlier_run

    dataset, file, overrides, given = asked.dataset, asked.config, asked.overrides, asked.given
    if not is_family(folder):
        folder, settings, paths = earlier_run(folder, dataset, file, overrides, given, force=asked.force)
        return Plan(settings, paths, folder, given.backbones, resume=True, skip_missing=asked.skip_missing)
    family = read_family(folder)
    before = Recorded(folder, family.config.model_dump(mode="json"), family.paths.as_json())
    settings, paths = continued(before, dataset, file, overrides, given, force=asked.force)
    parallel = min(asked.parallel or family.parallel, len(family.seeds))
    if parallel != family.parallel:
        render.warn(
            f"{family.parallel} of the runs trained at once, now {parallel}: with another number of threads the "
            "weights can differ in their last digits from those of an uninterrupted family."
        )
    return Plan(
        settings,
        paths,
        folder,
        given.backbones,
        resume=True,
        skip_missing=asked.skip_missing or family.skip_missing,
        seeds=family.seeds,
        parallel=parallel,
    )


def _new(asked: TrainOptions) -> Plan:
    from mesm_core.official.checkpoint import checkpoint_files, load_any_checkpoint

    init = None if asked.init is None else load_any_checkpoint(asked.init)
    for warning in () if init is None else init.warnings:
        render.warn(warning)
    settings, paths, given = new_settings(asked.dataset, asked.config, asked.overrides, asked.given, init)
    directory = _directory(asked, settings)
    plan = Plan(settings, paths, directory, given.backbones, skip_missing=asked.skip_missing, init=init)
    _refuse_inputs(plan, [asked.config, *([] if asked.init is None else checkpoint_files(asked.init))])
    return replace(plan, seeds=_seeds(asked, settings.train.seed))


def new_settings(
    dataset: str | None, config: Path | None, overrides: Sequence[str], given: Given, init: Checkpoint | None
) -> tuple[Config, Paths, Given]:
    """Return settings and paths of a new run. On a terminal, ask for backbones if they are needed but not set."""
    from mesm_core.training.start import new_run

    settings, paths = new_run(dataset, config, overrides, given, init=init)
    if settings.dataset.videos and not settings.dataset.backbones:
        backbones = own_videos.ask_backbones()
        if backbones:
            given = replace(given, backbones=backbones)
            settings, paths = new_run(dataset, config, overrides, given, init=init)
    return settings, paths, given


def _repeated(asked: TrainOptions, folder: Path) -> Plan:
    from mesm_core.official.checkpoint import load_any_checkpoint
    from mesm_core.training.directory import run_files
    from mesm_core.training.repeat import hash_now, read_repeat, refuse_other_data

    repeat = read_repeat(folder, asked.overrides, asked.given)
    directory = _directory(asked, repeat.config)
    init = None if repeat.init is None else load_any_checkpoint(repeat.init)
    plan = Plan(
        repeat.config,
        repeat.paths,
        directory,
        asked.given.backbones,
        skip_missing=asked.skip_missing or repeat.skip_missing,
        init=init,
        parallel=asked.parallel or repeat.parallel,
        repeat=repeat,
    )
    _refuse_inputs(plan, run_files(folder))
    with render.progress("Comparing data", len(repeat.data()), unit="files") as advance:
        now = {}
        for role, file in hash_now(repeat):
            now[role] = file
            advance(1, "")
    for difference in refuse_other_data(repeat, now, force=asked.force):
        render.warn(f"Other data than those of {folder}: {difference}")
    for key, before, value in repeat.changed:
        render.note(f"Changed: {key} = {formats.value_text(value)} ({formats.value_text(before)} in {folder})")
    if repeat.seeds and asked.seeds is None:
        return replace(plan, seeds=repeat.seeds)
    return replace(plan, seeds=_seeds(asked, repeat.config.train.seed))


def _directory(asked: TrainOptions, settings: Config) -> Path:
    """Return the folder of a new run, and refuse one that is taken."""
    from mesm_core.training.directory import prepare_directory, run_directory

    directory = run_directory(asked.runs_dir, settings.dataset.name, asked.name)
    writes = this_process().rank == 0  # on other machines nothing is written
    if writes and directory.exists() and not asked.overwrite:
        prepare_directory(directory, overwrite=False)
    return directory


def _refuse_inputs(plan: Plan, others: Sequence[Path | None]) -> None:
    """Refuse to overwrite a file that the run reads."""
    from mesm_core.build import data_files
    from mesm_core.places import refuse_inputs
    from mesm_core.training.directory import run_files

    splits = (plan.settings.dataset.train, *plan.settings.dataset.eval)
    refuse_inputs(run_files(plan.directory), [*data_files(plan.settings, plan.paths, splits), *others])


def _seeds(asked: TrainOptions, first: int) -> tuple[int, ...] | None:
    """Return the seeds of a new family, or None for one run.

    Raises:
        ConfigError: they are invalid, or a list and ``train.seed`` are both given.
    """
    from mesm_core.training.seeds import parse_seeds

    if asked.seeds is None:
        return None
    if "," in asked.seeds and any(word.replace(" ", "").startswith("train.seed=") for word in asked.overrides):
        raise ConfigError("--seeds lists the seeds, and --set train.seed names another. Remove one of the two.")
    return parse_seeds(asked.seeds, first)


def _checked(plan: Plan, asked: TrainOptions) -> Plan:
    """Refuse what does not go with one run, or with a family."""
    if plan.seeds is None and asked.parallel is not None:
        raise ConfigError("--parallel trains several seeds at once. Add --seeds.")
    several = (asked.gpus or 1) > 1 or this_process().world > 1
    if plan.seeds is not None and several:
        raise ConfigError(
            "A family of seeds trains each run in one process.",
            hint="Use --parallel N in place of --gpus N: the runs are spread over the GPUs.",
        )
    if plan.seeds is not None:
        # Runs that do not exist take no threads from the others.
        return replace(plan, parallel=min(asked.parallel or plan.parallel, len(plan.seeds)))
    return plan
