"""Schemas of the files of a run, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mesm_core.errors import DataError

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    """A part of a file: the fields that are shown must be present and have the right type; others are allowed."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Dataset(_Part):
    name: str


class _Train(_Part):
    epochs: Count


class Settings(_Part):
    """``config.json``."""

    dataset: _Dataset
    train: _Train


class Epoch(_Part):
    """A line of ``metrics.jsonl``; ``eval``: the summary by split, with None for values without queries."""

    epoch: Count
    losses: dict[str, float]
    eval: dict[str, dict[str, float | None]] = {}
    best: bool = False


class Epochs(_Part):
    """``metrics.jsonl``."""

    lines: list[Epoch]


class _Host(_Part):
    processor: str


class _Session(_Part):
    started: str
    first_epoch: Count
    device: str
    processes: Count
    host: _Host
    versions: dict[str, str]
    git: str | None
    seconds: Seconds
    end: str
    calibration: dict[str, str | float] = {}


class Record(_Part):
    """``run.json``."""

    sessions: list[_Session]


def check(value: Any, schema: type[BaseModel], path: Path) -> None:
    """Check the content of a file against its schema.

    Raises:
        DataError: the content does not match; the message names the file and the first wrong field.
    """
    try:
        schema.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(path, f"{where}: {first['msg']}" if where else first["msg"]) from error


def damaged(path: Path, reason: object) -> DataError:
    """Return the error for a damaged file of a run."""
    return DataError(
        f"{path.parent}: its {path.name} is damaged or does not belong to a run ({reason}).",
        hint="The checkpoints in the same folder can still be used.",
    )
