"""Schemas of the files of a run, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

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


class _Select(_Part):
    score: float


class Epoch(_Part):
    """A line of ``metrics.jsonl``; ``eval``: the summary by split, with None for values without queries."""

    epoch: Count
    losses: dict[str, float]
    eval: dict[str, dict[str, float | None]] = {}
    select: _Select | None = None
    best: bool = False


class Epochs(_Part):
    """``metrics.jsonl``."""

    lines: list[Epoch]


class _Host(_Part):
    processor: str


class _File(_Part):
    path: str
    bytes: Count
    sha256: str


class _Paths(_Part):
    annotations: str
    features: list[str]
    text: str


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
    # Sessions of earlier versions have none of these.
    threads: Count | None = None
    data: dict[str, _File] | None = None
    paths: _Paths | None = None
    init: str | None = None
    skip_missing: bool = False
    calibration: dict[str, str | float] = {}


class Record(_Part):
    """``run.json``."""

    sessions: list[_Session]


def _all_different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is repeated")
    return seeds


class FamilyRecord(_Part):
    """``family.json``."""

    seeds: Annotated[list[Count], Field(min_length=1), AfterValidator(_all_different)]
    parallel: Annotated[int, Field(gt=0)]
    settings: Settings
    paths: _Paths
    init: str | None
    skip_missing: bool


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
