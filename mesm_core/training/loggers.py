"""Loggers that record a run's curves besides metrics.jsonl: TensorBoard, and others that are optional extras."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mesm_core.data.splits import split_labels
from mesm_core.errors import ConfigError, did_you_mean, listing
from mesm_core.places import explained


class Logger(Protocol):
    """Records the scalars of every epoch."""

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Record the scalars of an epoch (from 1), by name."""
        ...

    def close(self) -> None:
        """Finish writing."""
        ...


class TensorBoard:
    """Scalars for TensorBoard, in the run's folder."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = directory / "events.out.tfevents"
        self._hook, threading.excepthook = threading.excepthook, self._silent
        with explained(self._path):
            self._writer = SummaryWriter(str(directory))

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Record the scalars of an epoch.

        Raises:
            OutputError: the file could not be written.
        """
        with explained(self._path):
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    def close(self) -> None:
        """Finish writing.

        Raises:
            OutputError: the file could not be written.
        """
        threading.excepthook = self._hook
        with explained(self._path):
            self._writer.close()

    def _silent(self, args: threading.ExceptHookArgs) -> None:
        """Suppress the traceback of the writer's thread for errors that ``write`` raises."""
        if not isinstance(args.exc_value, OSError):
            self._hook(args)


class Wandb:
    """Weights & Biases (extra ``wandb``); project and mode are taken from its environment variables."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(name=directory.name, dir=str(directory), config=dict(config), resume="allow")

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Record the scalars of an epoch."""
        self._run.log(dict(scalars), step=epoch)

    def close(self) -> None:
        """Finish writing."""
        self._run.finish()


class Mlflow:
    """MLflow (extra ``mlflow``); the server is taken from its environment variables."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.start_run(run_name=directory.name)
        mlflow.log_dict(dict(config), "config.json")

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Record the scalars of an epoch. MLflow does not allow @ in names."""
        self._mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in scalars.items()}, step=epoch)

    def close(self) -> None:
        """Finish writing."""
        self._mlflow.end_run()


# One line per logger: name -> constructor that takes the run's folder and settings.
LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
}


def check_loggers(names: Sequence[str]) -> None:
    """Raise ConfigError if a name is not in the table."""
    for name in names:
        if name not in LOGGERS:
            raise ConfigError(
                f"train.loggers: no logger is called '{name}'.{did_you_mean(name, LOGGERS)}",
                hint=f"Known: {listing(LOGGERS)}.",
            )


def open_loggers(names: tuple[str, ...], directory: Path, config: Mapping[str, Any]) -> list[Logger]:
    """Open the named loggers.

    Raises:
        ConfigError: there is no logger with that name, or its package is not installed.
    """
    loggers = []
    check_loggers(names)
    for name in names:
        try:
            loggers.append(LOGGERS[name](directory, config))
        except ImportError as error:
            raise ConfigError(
                f"train.loggers: {name} is not installed.", hint=f"pip install 'mesm[{name}]'."
            ) from error
    return loggers


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalars in an epoch's record: losses, learning rate, speed and metrics.

    >>> scalars_of({"losses": {"loss": 2.0}, "lr": 0.1, "queries_per_s": 9.0, "eval": {"val": {"MR-full-mIoU": 5.0}}})
    {'loss/loss': 2.0, 'train/lr': 0.1, 'train/queries_per_s': 9.0, 'val/MR-full-mIoU': 5.0}
    """
    scalars = {f"loss/{name}": value for name, value in record["losses"].items()}
    scalars |= {"train/lr": record["lr"], "train/queries_per_s": record["queries_per_s"]}
    found = record.get("eval", {})
    for split, label in split_labels(found).items():
        scalars |= {f"{label}/{key}": value for key, value in found[split].items() if value is not None}
    return scalars
