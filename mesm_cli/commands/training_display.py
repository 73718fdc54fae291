"""Display of a training run: its events as lines and a progress bar; signals stop it after a step."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesm_cli import render
from mesm_cli.entry import Interrupt
from mesm_cli.errors import is_repeated
from mesm_cli.layout import shown_losses
from mesm_core.errors import MesmError

if TYPE_CHECKING:
    from rich.text import Text

    from mesm_core.training.events import EpochDone, Started
    from mesm_core.training.run import Run

Speaker = Callable[["str | Text"], None]
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # not on Windows


class Signals:
    """Signal handler: before the first step it ends the program, later it asks the run to stop."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.stepping = False
        self.received: int | None = None

    def __call__(self, number: int, _: object) -> None:
        """Handle a signal. A second one ends the program at once."""
        again, self.received = self.received is not None, number
        if number == HANGUP:
            leave_the_terminal()
        if again or not self.stepping:
            raise Interrupt(number)
        self.run.ask_to_stop()
        if self.run.team.is_main:
            render.note("Stopping after this step. Press Ctrl-C again to stop at once.")

    @property
    def exit_code(self) -> int:
        """The exit code of a program that was ended by a signal."""
        return 128 + (self.received or signal.SIGINT)


@contextmanager
def handling(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Handle INT, TERM and HUP within the context. If HUP is ignored, as with ``nohup``, it stays ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
        numbers.append(HANGUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def signals(run: Run) -> Iterator[Signals]:
    """Stop the run after a step when INT, TERM or HUP arrives within the context."""
    handler = Signals(run)
    with handling(handler):
        yield handler


def leave_the_terminal() -> None:
    """Discard output to a terminal that was closed, since writing to it is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)


@contextmanager
def _hint_to_resume(handler: Signals, folder: Path) -> Iterator[None]:
    """If an error ends a run that has begun, add a hint that the run, or the family in ``folder``, can be resumed."""
    from mesm_core.processes import LostProcessError
    from mesm_core.training.directory import LAST
    from mesm_core.training.finite import NotFiniteError

    try:
        yield
    except MesmError as error:
        if handler.stepping and (handler.run.directory / LAST).exists():
            again = f"Continue from the last checkpoint with: mesm train --resume {folder}"
            error.hint = f"{error.hint}\n  {again}" if error.hint else again
        everywhere = isinstance(error, LostProcessError) or isinstance(error.__cause__, NotFiniteError)
        if handler.stepping and is_repeated() and not everywhere:
            # Only this process has the error, for example because only it reads a damaged video.
            render.error(f"Process {handler.run.team.rank}: {error.message}", error.hint)
        raise


def display_training(
    run: Run, *, human: Speaker, family: Path | None = None, place: str = ""
) -> tuple[dict[str, Any], int]:
    """Train and show the run's events. Return its result and the exit code: 0, or that of a signal.

    Args:
        family: folder of the family that the run belongs to, which is resumed as a whole; place: of the run in the
            family, for the progress bar.
    """
    from mesm_cli.confidence_tables import calibration_text
    from mesm_core.processes import losses_explained
    from mesm_core.training.directory import BEST
    from mesm_core.training.events import Busy, Calibrated, EpochDone, Finished, Started, Stopped, Warned
    from mesm_core.training.loop import Step

    result: dict[str, Any] = {"run": str(run.directory)}
    folder = family or run.directory
    code = 0
    with (
        signals(run) as handler,
        _hint_to_resume(handler, folder),
        render.training_progress(place=place, quiet=not run.team.is_main) as display,
        losses_explained(),
    ):
        for event in run.train():
            handler.stepping |= isinstance(event, Step | EpochDone)
            if isinstance(event, Stopped):
                code = handler.exit_code
            if not run.team.is_main:
                continue
            if isinstance(event, Started):
                _started(event, run, human)
            elif isinstance(event, Step):
                display.step(event, epochs=run.config.train.epochs, processes=run.team.world)
            elif isinstance(event, Warned):
                render.warn(event.message)
            elif isinstance(event, Busy):
                display.busy(event.what, event.done, event.total)
            elif isinstance(event, EpochDone):
                human(_epoch_line(event, run.config.train.epochs))
            elif isinstance(event, Calibrated):
                result["calibration"] = event.summary
                human(f"Confidence: {calibration_text(event.summary)}")
            elif isinstance(event, Stopped):
                result["stopped"] = {"epoch": event.epoch, "step": event.step}
                where = f"in epoch {event.epoch} after step {event.step}"
                if event.epoch > run.config.train.epochs:
                    where = "before the confidence was calibrated"
                human(f"Stopped {where}. The checkpoint is saved.")
                again = f" (in {run.team.world} processes, as before)" if run.team.world > 1 else ""
                human(f"Continue{again} with: mesm train --resume {folder}")
            elif isinstance(event, Finished):
                result |= {"best_epoch": event.best_epoch, "best_score": event.best_score}
                result["stopped_early"] = event.stopped_early
                if event.stopped_early:
                    human(f"Stopped early: no improvement in {run.config.train.patience} evaluations")
    if result.get("best_epoch") is not None:
        result["best"] = str(run.directory / BEST)
        human(f"Best: epoch {result['best_epoch']}, {run.config.eval.select} {result['best_score']:.2f}")
        human(f"Checkpoint: {result['best']}")
    return result, code


def _started(event: Started, run: Run, human: Speaker) -> None:
    from mesm_core.data.splits import split_labels
    from mesm_core.errors import count, listing
    from mesm_core.fast.bfloat16 import fast_bfloat16

    train = run.config.train
    if event.skipped:
        render.warn(f"Left out: {count(len(event.skipped), 'video')} without features")
    for split, repairs in event.repairs.items():
        made = ", ".join(f"{count} {what}" for what, count in repairs.items())
        human(render.styled((f"Repaired annotations of {split}: {made}", "dim")))
    human(
        f"Training on {count(event.queries, 'query')} in {count(event.videos, 'video')}: "
        f"{event.parameters:,} parameters on {run.device}, {count(event.epochs, 'epoch')}, "
        f"chosen on {', '.join(split_labels(run.eval_data).values())}"
    )
    if run.team.world > 1 or train.accumulate > 1:
        parts = f"{run.team.world} processes × {train.accumulate} batches × {train.batch_size}"
        human(f"A step takes {event.effective_batch} groups ({parts}), learning rate {train.lr:g}")
    if train.precision == "bf16" and run.device.type == "cpu" and not fast_bfloat16():
        how = (
            "values are rounded in the feed-forward layers, to save memory"
            if run.config.model.fast
            else "fp32 trains faster"
        )
        human(f"On this CPU bfloat16 products are not faster than float32: {how}.")
    if train.compile:
        slower = ". On a CPU the first steps take minutes, and later steps are slower than without --compile"
        human(f"Compiling the model{slower if run.device.type == 'cpu' else ''}.")
    if event.fresh:
        render.warn(
            f"{len(event.fresh)} weights are not in the checkpoint and start untrained: {listing(event.fresh, limit=3)}"
        )
    if event.first_step > 1:
        human(f"Resuming in epoch {event.first_epoch} after step {event.first_step - 1}")
    elif event.first_epoch > event.epochs:
        human(f"All {event.epochs} epochs are done. To train longer, add --set train.epochs=N.")
    elif event.first_epoch > 1:
        human(f"Resuming after epoch {event.first_epoch - 1}")


def _epoch_line(event: EpochDone, epochs: int) -> Text:
    from mesm_core.data.splits import split_labels
    from mesm_core.metrics.table import column_names, full_key

    record = event.record
    parts: list[str | tuple[str, str]] = [(f"{record['epoch']:>4}/{epochs}", "bold")]
    if record["losses"]:
        # All losses if there is room for them, else the total; metrics.jsonl has all of them.
        named = shown_losses(record["losses"], most=None if (render.width() or render.WIDE) >= render.WIDE else 0)
        losses = [f"{short} {record['losses'][key]:.3g}" for short, key in named]
        parts += ["  ", " ".join(losses), f"  {record['queries_per_s']:.0f} q/s"]
    found = record.get("eval", {})
    for split, label in split_labels(found).items():
        scores = ((name, found[split].get(full_key(name))) for name in column_names())
        shown = [f"{name} {value:.2f}" for name, value in scores if value is not None]
        parts += ["  ", (label, "cyan"), f" {' '.join(shown)}"]
    return render.styled(*parts, *([("  best", "green")] if event.best else []))
