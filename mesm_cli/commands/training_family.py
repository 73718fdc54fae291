"""Training of a family: one run for each seed, in turn or several at once."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TextIO

from mesm_cli import render
from mesm_cli.commands import family_tables
from mesm_cli.commands.training_display import (
    HANGUP,
    Speaker,
    display_training,
    handling,
    leave_the_terminal,
)
from mesm_cli.commands.training_plan import Plan, TrainOptions
from mesm_cli.entry import Interrupt
from mesm_core.errors import ConfigError, MesmError, listing

if TYPE_CHECKING:
    import torch

    from mesm_core.training.family import Family

PROGRAM = (sys.executable, "-m", "mesm_cli.app", "train")
FAILED = 2
STOPPED = (129, 130, 143)
"""Exit codes of a run that was asked to stop, by HUP, INT or TERM. Any other signal has killed it."""
KILLED = 137
"""Exit code of a run that the system has killed."""
SECONDS_TO_SAVE = 30.0


def train_family(plan: Plan, seeds: tuple[int, ...], asked: TrainOptions) -> int:
    """Train the runs of a family that are not finished, show the spread of the results, and return the exit code."""
    from mesm_cli.commands.training_runs import compare_family, warn_of_circumstances
    from mesm_core.build import build_device
    from mesm_core.training.directory import claimed, prepare_directory, remove_run
    from mesm_core.training.family import Family, summarise

    init = None if plan.init is None else plan.init.source
    if plan.resume:
        init = _recorded_init(plan.directory)
    family = Family(plan.directory, seeds, plan.settings, plan.paths, plan.parallel, init, plan.skip_missing)
    human: Speaker = render.note if asked.json else render.say
    if plan.repeat is not None:
        warn_of_circumstances(plan.repeat, device=str(build_device(asked.device)), parallel=plan.parallel)
    with claimed(family.folder), _ended_by_signals():
        if not plan.resume:
            prepare_directory(family.folder, overwrite=asked.overwrite)
        family.write()
        try:
            if family.parallel > 1:
                codes = _train_at_once(family, human, device=asked.device)
            else:
                codes = _train_in_turn(family, human, device=build_device(asked.device))
        except Interrupt:
            if family.has_begun or plan.resume:
                human(f"Continue with: mesm train --resume {family.folder}")
            raise
        finally:
            if family.has_begun or plan.resume:
                family.write()
            else:
                remove_run(family.folder)
    stopped = max((code for code in codes.values() if code in STOPPED), default=0)
    failed = [seed for seed, code in codes.items() if code and code not in STOPPED]
    if stopped:
        human(f"Continue all seeds with: mesm train --resume {family.folder}")
    summary = summarise(family.folder, seeds, dataset=family.config.dataset.name)
    result = summary.as_json() | {"failed": failed}
    if plan.repeat is not None and plan.repeat.seeds and not stopped:
        result["same_weights"] = compare_family(family.folder, plan.repeat)
    if asked.json:
        render.data(result)
    elif not stopped and summary.evaluated:
        family_tables.show(summary)
    if failed:
        names = ", ".join(map(str, failed))
        again = f"Try them again with: mesm train --resume {family.folder}" if family.folder.exists() else None
        if again and KILLED in codes.values():
            again += ". The system kills processes when memory runs out; a smaller --parallel needs less."
        render.error(f"Seeds that failed: {names}.", again)
    return stopped or (FAILED if failed else 0)


def train_member(folder: Path, seed: int, *, device: str) -> int:
    """Train one run of a family in a child process of ``mesm train``, and return the exit code.

    Raises:
        MesmError: the folder holds no family, or one without this seed.
    """
    from mesm_core.build import build_device
    from mesm_core.training.family import read_family

    family = read_family(folder)
    if seed not in family.seeds:
        raise ConfigError(f"{folder} has no seed {seed}.", hint=f"Its seeds: {listing(family.seeds)}.")
    sys.stdout, sys.stderr = _Lasting(sys.stdout), _Lasting(sys.stderr)
    Thread(target=_stop_without_parent, daemon=True).start()
    with _ended_by_signals():
        return _train_one(family, seed, render.say, device=build_device(device)).code


class _Trained:
    """The outcome of a run: its exit code, and its open features, which the next run can use."""

    def __init__(self, code: int, features: Any) -> None:
        self.code = code
        self.features = features


def _train_one(
    family: Family, seed: int, human: Speaker, *, device: torch.device, place: str = "", features: Any = None
) -> _Trained:
    from mesm_core.training.directory import claimed
    from mesm_core.training.members import open_member

    # A run may still be saving if its parent was killed a moment ago.
    with claimed(family.folder_of(seed), patience=SECONDS_TO_SAVE):
        run = open_member(family, seed, device=device, features=features)
        _, code = display_training(run, human=human, family=family.folder, place=place)
    return _Trained(code, run.train_data.features)


def _train_in_turn(family: Family, human: Speaker, *, device: torch.device) -> dict[int, int]:
    """Train the runs in turn and return their exit codes by seed. A run that fails does not keep the others from it."""
    codes: dict[int, int] = {}
    features = None
    for number, seed in enumerate(family.seeds, start=1):
        place = f"seed {number} of {len(family.seeds)}"
        if family.is_finished(seed):
            human(f"{place.capitalize()}, {seed}: finished")
            continue
        human(render.styled((place.capitalize(), "bold"), f", {seed}: {family.folder_of(seed)}"))
        try:
            trained = _train_one(family, seed, human, device=device, place=place, features=features)
        except MesmError as error:
            if not family.has_begun:  # a fault of the data or settings, not of this seed
                raise
            render.error(f"Seed {seed}: {error.message}", error.hint)
            codes[seed] = FAILED
            continue
        codes[seed], features = trained.code, trained.features
        family.write()
        if trained.code:
            break
    return codes


def _train_at_once(family: Family, human: Speaker, *, device: str) -> dict[int, int]:
    """Train several runs at once in child processes, pass on what they print, and return their exit codes by seed."""
    import torch

    from mesm_core.children import Children, Ended
    from mesm_core.training.members import member_commands

    columns, label = render.width(), max(len(f"seed {seed}  ") for seed in family.seeds)
    room = {} if columns is None else {render.TERMINAL_WIDTH: str(max(columns - label, 1))}
    commands = member_commands(family, PROGRAM, device=device, threads=torch.get_num_threads(), environment=room)
    for seed in family.seeds:
        if str(seed) not in commands:
            human(f"Seed {seed}: finished")
    children = Children(commands, most=family.parallel)
    codes: dict[int, int] = {}
    done = len(family.seeds) - len(commands)
    with _passed_on(children.stop):
        for event in children.run():
            if isinstance(event, Ended):
                codes[int(event.name)] = event.code
                done += event.code == 0
                human(f"Seed {event.name} {_outcome(event.code)}; {done} of {len(family.seeds)} are finished")
                family.write()
                continue
            line = render.styled((f"seed {event.name}", "dim"), f"  {event.text}")
            if event.error:
                render.note(line)
            else:
                human(line)
    return codes


def _outcome(code: int) -> str:
    if code in STOPPED:
        return "was stopped"
    if code > 128:
        return f"was killed ({signal.Signals(code - 128).name})"
    return "failed" if code else "is finished"


def _recorded_init(folder: Path) -> Path | None:
    from mesm_core.training.family import read_family

    return read_family(folder).init


def _stop_without_parent() -> None:
    """Stop this process as with a TERM signal when its standard input ends, because its parent has ended."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


class _Lasting(io.TextIOBase):
    """An output that discards what nobody reads, so that a run is saved although its parent has ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write the text, if somebody reads it."""
        with suppress(BrokenPipeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with suppress(BrokenPipeError):
            self._stream.flush()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let INT, TERM and HUP raise Interrupt within the context, where no run handles them: between the runs."""

    def handle(number: int, _: object) -> None:
        if number == HANGUP:
            leave_the_terminal()
        raise Interrupt(number)

    with handling(handle):
        yield


@contextmanager
def _passed_on(stop: Callable[[int], None]) -> Iterator[None]:
    """Pass on INT, TERM and HUP to child processes within the context: the second ends them at once."""
    received = 0

    def handle(number: int, _: object) -> None:
        nonlocal received
        received += 1
        if number == HANGUP:
            leave_the_terminal()
        if received > 2:
            raise Interrupt(number)
        stop(number)
        if received == 1:
            render.note("Stopping all runs after this step. Press Ctrl-C again to stop at once.")

    with handling(handle):
        yield
