"""A training run: epochs, evaluations, records on disk, and early stopping."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mesm_core.build import Paths, evaluation_settings, refuse_misfits
from mesm_core.build.training import TrainingParts, build_training
from mesm_core.checkpoint import Checkpoint, save_checkpoint
from mesm_core.config.schema import Config
from mesm_core.data.features import FeatureStore
from mesm_core.errors import MesmError, OutputError
from mesm_core.inference.evaluate import Evaluation, evaluate, predictions_name, write_predictions
from mesm_core.metrics.table import full_key
from mesm_core.processes import ALONE, Team
from mesm_core.training.calibrating import calibrate_best
from mesm_core.training.directory import (
    BEST,
    CONFIG,
    NOT_FINITE,
    PREDICTIONS,
    append_record,
    drop_records_after,
    load_last,
    remove_run,
    save_last,
    write_json,
)
from mesm_core.training.events import (
    Busy,
    Calibrated,
    EpochDone,
    Event,
    Finished,
    Started,
    Stopped,
    StopRequestedError,
    Warned,
)
from mesm_core.training.finite import FiniteWatch, NotFiniteError
from mesm_core.training.loggers import Logger, check_loggers, open_loggers, scalars_of
from mesm_core.training.loop import train_epoch
from mesm_core.training.memory import keep_freed_memory
from mesm_core.training.objective import Objective
from mesm_core.training.optim import learning_rate, load_optimizer, make_optimizer, set_learning_rate
from mesm_core.training.precision import compiled
from mesm_core.training.preparation import encode_text, hash_data, other_threads, read_features
from mesm_core.training.progress import Progress
from mesm_core.training.record import RunRecord


class Run:
    """Trains a model and records the run in a directory.

    Args:
        parts: data, model and losses.
        directory: the run's directory, prepared and claimed; with ``resume``, that of an earlier run.
        device: device of the model.
        resume: continue from the newest checkpoint in the directory.
        team: the processes that train together.
        watch: checks that losses and gradients are finite. Default: a watch for the device and the team.
        init: the checkpoint that the initial weights came from, for the record.

    Raises:
        MesmError: the checkpoint in the directory cannot be used, or a logger is unknown. Nothing is written then.
    """

    def __init__(
        self,
        parts: TrainingParts,
        directory: Path,
        *,
        device: torch.device,
        resume: bool = False,
        team: Team = ALONE,
        watch: FiniteWatch | None = None,
        init: Path | None = None,
    ) -> None:
        config = parts.config
        check_loggers(config.train.loggers)
        self.config, self.paths, self.directory, self.device, self.team = config, parts.paths, directory, device, team
        self.text, self.train_data, self.eval_data = parts.text, parts.train_data, parts.eval_data
        self.model, self.criterion = parts.model, parts.criterion
        self.parts = parts
        self.optimizer = make_optimizer(self.model, lr=config.train.lr, weight_decay=config.train.weight_decay)
        self.progress = Progress()
        self._watch = FiniteWatch(device, team=team) if watch is None else watch
        self._batches_per_step = config.train.accumulate * team.world
        self._stop_requested = False
        self._saved_at = time.monotonic()
        self._has_saved_steps = False
        self._problems: list[str] = []
        self._init = init
        if resume:
            # All continue from the same state, even if a machine has an older copy of the folder.
            checkpoint, self._problems = team.from_main(lambda: load_last(directory))
            refuse_misfits(self.model.state_dict(), checkpoint.model)
            self.model.load_state_dict(checkpoint.model)
            load_optimizer(self.optimizer, checkpoint.training["optimizer"], source=str(directory))
            self._restore_progress(checkpoint)
            self._problems += other_threads(directory) if team.is_main else []
        self._resumed = resume
        team.any(False)  # wait until all processes have read what the main process will overwrite

    @classmethod
    def open(
        cls,
        config: Config,
        paths: Paths,
        directory: Path,
        *,
        device: torch.device,
        skip_missing: bool = False,
        resume: bool = False,
        init: Checkpoint | None = None,
        features: FeatureStore | None = None,
        team: Team = ALONE,
        watch: FiniteWatch | None = None,
    ) -> Run:
        """Build the parts of a run from settings and files, and return the run.

        Args:
            config: resolved settings; paths: paths of the data; other arguments as for ``Run``.
            skip_missing: leave out videos without features.
            init: a checkpoint to take initial weights from, as far as they fit the model.
            features: open features of the same settings and files, for example those of another run.

        Raises:
            MesmError: data or settings cannot be used. Nothing is written then.
        """
        weights, source = (None, None) if init is None else (init.model, init.source)
        parts = build_training(config, paths, device=device, skip_missing=skip_missing, init=weights, features=features)
        return cls(parts, directory, device=device, resume=resume, team=team, watch=watch, init=source)

    def ask_to_stop(self) -> None:
        """Make ``train`` save and end after the current step. Safe to call from a signal handler."""
        self._stop_requested = True

    def train(self) -> Iterator[Event]:
        """Train and yield events until the last epoch, until patience runs out, or until the run is asked to stop."""
        keep_freed_memory()
        yield self._started()
        for problem in self._problems:
            yield Warned(problem)
        data: dict[str, Any] = {}
        if self.team.is_main:
            data = yield from hash_data(self.parts, self._init)
        yield from read_features(self.parts, self.device)
        yield from encode_text(self.parts)
        settings = self.config.model_dump(mode="json")
        first_epoch = self.progress.epoch + 1
        with self._cleanup_unstarted(), ExitStack() as stack:
            record, loggers = None, []
            self._save_progress()  # a run that is killed from here on can be resumed
            if self.team.is_main:
                drop_records_after(self.directory, self.progress.epoch)
                write_json(self.directory / CONFIG, settings)
                record = RunRecord(
                    self.directory,
                    device=str(self.device),
                    processes=self.team.world,
                    first_epoch=first_epoch,
                    made_of=data,
                )
                record.write()
                loggers = open_loggers(self.config.train.loggers, self.directory, settings)
                for logger in loggers:
                    stack.callback(logger.close)
            end: Event | None = None
            try:
                for event in self._epochs(self.team.wrap(self._objective(), self.device), loggers):
                    end = event
                    if record is not None and isinstance(event, EpochDone | Calibrated):
                        record.write(calibration=event.summary if isinstance(event, Calibrated) else None)
                    yield event
            except BaseException as error:
                if record is not None:
                    with suppress(OutputError):  # a full disk has already been reported
                        record.write(_ending(end))
                if isinstance(error, NotFiniteError):
                    raise self._report_not_finite(error) from error
                raise
            if record is not None:
                record.write(_ending(end))

    @contextmanager
    def _cleanup_unstarted(self) -> Iterator[None]:
        """Remove the folder of a new run if writing fails before any training step has been saved."""
        try:
            yield
        except OutputError:
            if self.team.is_main and not self._resumed and not self._has_saved_steps:
                with suppress(OutputError):
                    remove_run(self.directory)
            raise

    def _epochs(self, objective: nn.Module, loggers: list[Logger]) -> Iterator[Event]:
        train, progress = self.config.train, self.progress
        if train.eval_untrained and not self._resumed:
            results = yield from self._evaluate()
            briefs = {split: result.brief for split, result in results.items()}
            untrained = {"epoch": 0, "losses": {}, "eval": briefs, "best": False}
            if self.team.is_main:
                append_record(self.directory, untrained)
            yield EpochDone(untrained, best=False)
        stopped = 0 <= train.patience < progress.waiting
        while progress.epoch < train.epochs and not stopped:
            rate = learning_rate(progress.epoch, lr=train.lr, lr_drop=train.lr_drop, gamma=train.gamma)
            set_learning_rate(self.optimizer, rate)
            stopping = yield from self._epoch(objective)
            if stopping:
                yield self._stop()
                return
            evaluations: dict[str, Evaluation] = {}
            if (progress.epoch + 1) % train.eval_every == 0 or progress.epoch + 1 == train.epochs:
                try:
                    evaluations = yield from self._evaluate()
                except StopRequestedError:
                    yield self._stop()
                    return
            record = progress.finish_epoch(rate, self._shares())
            best = self._judge(record, evaluations)
            if self.team.is_main:
                self._write(record, evaluations, best=best)
            self._save_progress(record.get("eval", {}))
            for logger in loggers:
                logger.write(scalars_of(record), progress.epoch)
            yield EpochDone(record, best)
            stopped = 0 <= train.patience < progress.waiting
        try:
            yield from calibrate_best(
                self.parts, self.directory, device=self.device, team=self.team, check_stop=self._check_stop
            )
        except StopRequestedError:
            yield self._stop()
            return
        yield Finished(progress.best_epoch, progress.best_score, stopped)

    def _epoch(self, objective: nn.Module) -> Generator[Event, None, bool]:
        """Train the rest of the current epoch; return True if any process was asked to stop."""
        train, progress = self.config.train, self.progress
        steps = train_epoch(
            objective,
            self.optimizer,
            self.train_data,
            epoch=progress.epoch,
            seed=train.seed,
            batch_size=train.batch_size,
            grad_clip=train.grad_clip,
            device=self.device,
            precision=train.precision,
            first=progress.step,
            accumulate=train.accumulate,
            team=self.team,
            watch=self._watch,
        )
        last = time.monotonic()
        for step in steps:
            now = time.monotonic()
            progress.add(step, now - last)
            last = now
            yield step
            if self.team.any(self._stop_requested):
                return True
            if train.save_minutes > 0 and self.team.any(now - self._saved_at > train.save_minutes * 60):
                self._save_progress()
        return False

    def _stop(self) -> Stopped:
        self._save_progress()
        return Stopped(self.progress.epoch + 1, self.progress.step)

    def _objective(self) -> nn.Module:
        objective = Objective(self.model, self.criterion)
        return compiled(objective) if self.config.train.compile else objective

    def _restore_progress(self, checkpoint: Checkpoint) -> None:
        """Restore the progress of the run; note a problem if a step takes another number of batches than before."""
        state, batches = checkpoint.training, self._batches_per_step
        self.progress = Progress.from_state(checkpoint.epoch, state, batches=batches, team=self.team)
        if state["batches"] != batches:
            self._problems.append(
                f"A step took {state['batches']} batches in {len(state['shares'])} processes, now {batches} in "
                f"{self.team.world}: the weights will differ from those of an uninterrupted run."
            )

    def _shares(self) -> list[dict[str, Any]]:
        """Return what every process counted in the current epoch, by rank. All processes must call this together."""
        return [share[0] for share in self.team.gather([self.progress.share()])]

    def _evaluate(self) -> Generator[Event, None, dict[str, Evaluation]]:
        total = sum(len(data) for data in self.eval_data.values())
        done = 0
        results: dict[str, Evaluation] = {}
        for split, data in self.eval_data.items():
            yield Busy("Evaluating", done, total)
            settings = evaluation_settings(self.config)
            results[split] = evaluate(
                self.model, data, device=self.device, team=self.team, progress=self._check_stop, **settings
            )
            done += len(data)
        yield Busy("Evaluating", done, total)
        return results

    def _check_stop(self, _: int) -> None:
        """End the evaluation if the run was asked to stop. Several processes always finish it together."""
        if self._stop_requested and self.team.world == 1:
            raise StopRequestedError

    def _judge(self, record: dict[str, Any], evaluations: Mapping[str, Evaluation]) -> bool:
        """Add the evaluations to the record, and return whether they are the best so far."""
        if not evaluations:
            return False
        key = full_key(self.config.eval.select)
        score = sum(evaluation.brief[key] or 0.0 for evaluation in evaluations.values()) / len(evaluations)
        record["eval"] = {split: evaluation.brief for split, evaluation in evaluations.items()}
        record["select"] = {"key": key, "splits": list(evaluations), "score": round(score, 4)}
        record["best"] = self.progress.judge(score)
        return bool(record["best"])

    def _write(self, record: dict[str, Any], evaluations: Mapping[str, Evaluation], *, best: bool) -> None:
        append_record(self.directory, record)
        for split, evaluation in evaluations.items() if best else ():
            path = self.directory / PREDICTIONS / predictions_name(split)
            write_predictions(path, evaluation.predictions, overwrite=True)
        if best:
            save_checkpoint(self.directory / BEST, self._checkpoint(record.get("eval", {}), training={}))

    def _save_progress(self, metrics: Mapping[str, Any] | None = None) -> None:
        self._watch.finish()  # never save the weights of a step that is not known to be finite
        shares = self._shares()
        if self.team.is_main:
            progress = self.progress.state(shares, batches=self._batches_per_step)
            training = {"optimizer": self.optimizer.state_dict(), **progress}
            save_last(self.directory, self._checkpoint(metrics or {}, training=training), keep=self.config.train.keep)
            self._has_saved_steps = self._has_saved_steps or self.progress.epoch + self.progress.step > 0
        self._saved_at = time.monotonic()

    def _checkpoint(self, metrics: Mapping[str, Any], *, training: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            config=self.config.model_dump(mode="json"),
            model={name: value.detach().cpu() for name, value in self.model.state_dict().items()},
            text=dict(self.text.state()),
            paths=self.paths.as_json(),
            epoch=self.progress.epoch,
            metrics=dict(metrics),
            training=training,
            data_statistics=self.parts.data_statistics,
        )

    def _report_not_finite(self, error: NotFiniteError) -> MesmError:
        """Write the affected batches to a file, and return the error with the path of that file."""
        path = self.directory / NOT_FINITE
        queries = [{"qid": q.qid, "vid": q.vid, "query": q.sentence} for q in error.queries]
        if self.team.is_main:  # every process raises the same error
            write_json(path, {"epoch": self.progress.epoch + 1, "videos": error.vids, "queries": queries})
        hint = f"{error.hint} The batch is listed in {path}; the checkpoints are from before that batch."
        return MesmError(error.message, hint=hint)

    def _started(self) -> Started:
        queries = self.train_data.queries
        return Started(
            queries=len(queries),
            videos=len({query.vid for query in queries}),
            parameters=sum(p.numel() for p in self.model.parameters()),
            first_epoch=self.progress.epoch + 1,
            first_step=self.progress.step + 1,
            epochs=self.config.train.epochs,
            effective_batch=self.config.train.batch_size * self.config.train.accumulate * self.team.world,
            skipped=self.parts.skipped,
            repairs=self.parts.repairs,
            fresh=self.parts.fresh,
        )


def _ending(event: Event | None) -> str:
    """Return how a session ended, by its last event."""
    if isinstance(event, Finished):
        return "stopped early" if event.stopped_early else "finished"
    return "interrupted" if isinstance(event, Stopped) else "failed"
