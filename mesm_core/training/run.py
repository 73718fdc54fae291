"""A training run: epochs of steps, evaluations, records on disk, and the decision when to stop."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mesm_core.build import (
    Paths,
    build_criterion,
    build_features,
    build_model,
    build_split,
    build_text,
    evaluation_settings,
    load_matching,
)
from mesm_core.build.check import wrong_rate
from mesm_core.config.schema import Config
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.facts import data_facts
from mesm_core.data.files import write_atomically
from mesm_core.errors import DataError, OutputError
from mesm_core.inference.evaluate import Evaluation, evaluate, predictions_name, write_predictions
from mesm_core.text.encoder import in_batches
from mesm_core.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mesm_core.training.events import Busy, EpochDone, Event, Finished, Started, Warned
from mesm_core.training.loop import train_epoch
from mesm_core.training.memory import keep_freed_memory
from mesm_core.training.optim import learning_rate, make_optimizer, set_learning_rate

BEST, LAST, CONFIG, METRICS, PREDICTIONS = "best.pt", "last.pt", "config.json", "metrics.jsonl", "predictions"
ENCODED_AT_ONCE = 512


def run_directory(root: Path, dataset: str, name: str) -> Path:
    """Return ``root/<dataset>-<name>``."""
    return root / f"{dataset}-{name}"


def prepare_directory(directory: Path, *, overwrite: bool) -> None:
    """Make a run's directory; with ``overwrite``, without what an earlier run left there.

    Raises:
        OutputError: it holds a run and ``overwrite`` is off, or it cannot be written.
    """
    leftovers = [
        path
        for pattern in (BEST, LAST, CONFIG, METRICS, "events.out.tfevents.*", f"{PREDICTIONS}/*.jsonl")
        for path in directory.glob(pattern)
    ]
    if leftovers and not overwrite:
        raise OutputError(
            f"{directory} already holds a run.",
            hint=f"Go on with it: --resume {directory}. Replace it: --overwrite. Keep both: --name ANOTHER.",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in leftovers:
            path.unlink()
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror}.") from error


class Run:
    """Trains a model and keeps the record of it in a directory.

    Args:
        config: resolved settings; paths: where the data lies; directory: prepared, or an earlier run's.
        device: where to train.
        skip_missing: go on without the videos that have no features.
        resume: continue from the directory's last.pt.
        init: a checkpoint whose weights to start from, those that fit.

    Raises:
        MesmError: data or settings that cannot be used; nothing has been written then.
    """

    def __init__(
        self,
        config: Config,
        paths: Paths,
        directory: Path,
        *,
        device: torch.device,
        skip_missing: bool = False,
        resume: bool = False,
        init: Checkpoint | None = None,
    ) -> None:
        self.config, self.paths, self.directory, self.device = config, paths, directory, device
        self.text = build_text(config, paths, device=device)
        features = build_features(config, paths)
        splits = (config.dataset.train, *config.select_splits)
        built = {
            split: build_split(config, paths, split, self.text, features, skip_missing=skip_missing)
            for split in dict.fromkeys(splits)
        }
        self.skipped = [vid for split in built.values() for vid in split.missing]
        self.repairs = {name: split.repairs for name, split in built.items() if split.repairs}
        self.train_data: MomentDataset = built[config.dataset.train].dataset
        self.eval_data = {split: built[split].dataset for split in config.select_splits}
        bare = [split for split, data in self.eval_data.items() if not all(query.windows for query in data.queries)]
        if bare:
            raise DataError(f"{', '.join(bare)} has queries without windows, so it cannot choose a checkpoint.")
        self.train_data.plan(seed=config.train.seed, epoch=0, batch_size=config.train.batch_size)
        features.get(self.train_data.queries[0].vid)  # a wrong width fails here, before anything is written
        self.facts = data_facts(self.train_data)
        torch.manual_seed(config.train.seed)
        self.model = build_model(config.model, classes=self.text.classes, max_words=config.dataset.max_words)
        self.fresh = [] if init is None else load_matching(self.model, init.model, source="the checkpoint of --init")
        self.model.to(device)
        self.criterion = build_criterion(config.loss, config.model)
        self.optimizer = make_optimizer(self.model, lr=config.train.lr, weight_decay=config.train.weight_decay)
        self.epoch = 0
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.waiting = 0
        if resume:
            self._restore(load_checkpoint(directory / LAST))

    def train(self) -> Iterator[Event]:
        """Yield what happens, until the last epoch or until patience runs out."""
        train = self.config.train
        keep_freed_memory()
        yield self._started()
        yield from self._read_features()
        yield from self._encode_text()
        self._write_config()
        stopped = False
        with _Board(self.directory) as board:
            if train.eval_untrained and self.epoch == 0:
                evaluations = yield from self._evaluate()
                yield EpochDone(self._record_untrained(evaluations), best=False)
            while self.epoch < train.epochs and not stopped:
                rate = learning_rate(self.epoch, lr=train.lr, lr_drop=train.lr_drop, gamma=train.gamma)
                set_learning_rate(self.optimizer, rate)
                record = yield from self._epoch(rate)
                self.epoch += 1
                evaluations = {}
                if self.epoch % train.eval_every == 0 or self.epoch == train.epochs:
                    evaluations = yield from self._evaluate()
                best = self._judge(record, evaluations)
                self._save(record, evaluations, best=best)
                board.write(record)
                yield EpochDone(record, best)
                stopped = 0 <= train.patience < self.waiting
        yield Finished(self.best_epoch, self.best_score, stopped)

    def _read_features(self) -> Iterator[Event]:
        """Read what fits in memory, so that a damaged video is found before anything is written."""
        datasets = (self.train_data, *self.eval_data.values())
        vids = list(dict.fromkeys(query.vid for data in datasets for query in data.queries))
        durations = {query.vid: query.duration for data in datasets for query in data.queries}
        rates = []
        for done, vid in enumerate(self.train_data.features.read_ahead(vids), start=1):
            yield Busy("Reading features", done, len(vids))
            length = len(self.train_data.features.get(vid))
            if length < self.config.dataset.max_frames:
                rates.append(length / durations[vid])
        wrong = wrong_rate(statistics.median(rates), self.config.dataset.clip_len) if rates else None
        if wrong:
            yield Warned(f"The features' frame rate {wrong}.")

    def _encode_text(self) -> Iterator[Event]:
        datasets = (self.train_data, *self.eval_data.values())
        sentences = list(dict.fromkeys(query.sentence for data in datasets for query in data.queries))
        for done, part in enumerate(in_batches(sentences, ENCODED_AT_ONCE)):
            yield Busy("Encoding text", done * ENCODED_AT_ONCE, len(sentences))
            self.text.prepare(part)

    def _epoch(self, rate: float) -> Generator[Event, None, dict[str, Any]]:
        train = self.config.train
        began, queries = time.monotonic(), 0
        sums: dict[str, Tensor] = {}
        steps = 0
        for step in train_epoch(
            self.model,
            self.criterion,
            self.optimizer,
            self.train_data,
            epoch=self.epoch,
            seed=train.seed,
            batch_size=train.batch_size,
            grad_clip=train.grad_clip,
            device=self.device,
            precision=train.precision,
        ):
            for name, value in step.losses.items():
                sums[name] = sums.get(name, 0) + value
            queries, steps = queries + step.queries, steps + 1
            yield step
        seconds = time.monotonic() - began
        return {
            "epoch": self.epoch + 1,
            "lr": rate,
            "losses": {name: float(value) / steps for name, value in sums.items()},
            "queries": queries,
            "seconds": round(seconds, 2),
            "queries_per_s": round(queries / seconds, 2),
        }

    def _evaluate(self) -> Generator[Event, None, dict[str, Evaluation]]:
        total = sum(len(data) for data in self.eval_data.values())
        done = 0
        results: dict[str, Evaluation] = {}
        for split, data in self.eval_data.items():
            yield Busy("Evaluating", done, total)
            results[split] = evaluate(self.model, data, device=self.device, **evaluation_settings(self.config))
            done += len(data)
        yield Busy("Evaluating", done, total)
        return results

    def _judge(self, record: dict[str, Any], evaluations: Mapping[str, Evaluation]) -> bool:
        """Enter the evaluations in the record and return whether they are the best so far."""
        if not evaluations:
            return False
        key = f"MR-full-{self.config.eval.select}"
        score = sum(evaluation.brief[key] or 0.0 for evaluation in evaluations.values()) / len(evaluations)
        record["eval"] = {split: evaluation.brief for split, evaluation in evaluations.items()}
        record["select"] = {"key": key, "splits": list(evaluations), "score": round(score, 4)}
        best = self.best_score is None or score > self.best_score
        record["best"] = best
        if best:
            self.best_score, self.best_epoch, self.waiting = score, self.epoch, 0
        else:
            self.waiting += 1
        return best

    def _save(self, record: dict[str, Any], evaluations: Mapping[str, Evaluation], *, best: bool) -> None:
        self._append(record)
        for split, evaluation in evaluations.items() if best else ():
            path = self.directory / PREDICTIONS / predictions_name(split)
            write_predictions(path, evaluation.predictions, overwrite=True)
        if best:
            save_checkpoint(self.directory / BEST, self._checkpoint(record, training={}))
        training = {
            "optimizer": self.optimizer.state_dict(),
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "waiting": self.waiting,
        }
        save_checkpoint(self.directory / LAST, self._checkpoint(record, training=training))

    def _record_untrained(self, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
        briefs = {split: evaluation.brief for split, evaluation in evaluations.items()}
        record = {"epoch": 0, "losses": {}, "eval": briefs, "best": False}
        self._append(record)
        return record

    def _append(self, record: Mapping[str, Any]) -> None:
        with (self.directory / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _checkpoint(self, record: Mapping[str, Any], *, training: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            config=self.config.model_dump(mode="json"),
            model={name: value.detach().cpu() for name, value in self.model.state_dict().items()},
            text=dict(self.text.state()),
            paths=self.paths.as_json(),
            epoch=self.epoch,
            metrics=dict(record.get("eval", {})),
            training=training,
            facts=self.facts,
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.model)
        state = checkpoint.training
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = checkpoint.epoch
        self.best_score, self.best_epoch, self.waiting = (
            state["best_score"],
            state["best_epoch"],
            state["waiting"],
        )
        self._drop_records_after(self.epoch)

    def _drop_records_after(self, epoch: int) -> None:
        """Remove the record of an epoch that was written without its checkpoint."""
        path = self.directory / METRICS
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= epoch]
            write_atomically(path, "".join(kept).encode())

    def _write_config(self) -> None:
        text = json.dumps(self.config.model_dump(mode="json"), indent=2) + "\n"
        write_atomically(self.directory / CONFIG, text.encode())

    def _started(self) -> Started:
        queries = self.train_data.queries
        return Started(
            queries=len(queries),
            videos=len({query.vid for query in queries}),
            parameters=sum(p.numel() for p in self.model.parameters()),
            first_epoch=self.epoch + 1,
            epochs=self.config.train.epochs,
            skipped=self.skipped,
            repairs=self.repairs,
            fresh=self.fresh,
        )


class _Board:
    """TensorBoard scalars of a run."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory))

    def __enter__(self) -> _Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Write an epoch's losses, learning rate, speed and metrics."""
        epoch = record["epoch"]
        scalars = {f"loss/{name}": value for name, value in record["losses"].items()}
        scalars |= {"train/lr": record["lr"], "train/queries_per_s": record["queries_per_s"]}
        for split, brief in record.get("eval", {}).items():
            scalars |= {f"{split}/{key}": value for key, value in brief.items() if value is not None}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()
