"""Checks that find everything that is missing or inconsistent before a run starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from mesm_core.build.data import build_features, check_select
from mesm_core.build.model import build_criterion
from mesm_core.build.paths import Paths
from mesm_core.build.text import text_checks
from mesm_core.config.schema import Config
from mesm_core.data.features import FeatureStore
from mesm_core.data.readers import read_split
from mesm_core.data.splits import named_split
from mesm_core.devices import build_device
from mesm_core.errors import DataError, MesmError, count
from mesm_core.types import Query

Result = TypeVar("Result")


def require_ready(
    config: Config, paths: Paths, *, device: str, skip_missing: bool = False, features: bool = True
) -> None:
    """Raise one error that lists everything that keeps a run from starting.

    Checks the device, the annotations of each split, every feature file, the width of the features, videos without
    features, and the text encoder's files. Reads the features of one video; does not read large text files.

    Args:
        device: as on the command line; skip_missing: allow videos without features.
        features: check the features too; False if they are still to be extracted.

    Raises:
        MesmError: something is missing or does not fit; the message has one line for each problem and how to fix it.
    """
    problems = find_problems(config, paths, device=device, skip_missing=skip_missing, features=features)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [f"  - {' '.join(str(problem).split())}" for problem in problems]
        raise MesmError(f"The run cannot start ({count(len(problems), 'problem')}):\n" + "\n".join(lines))


def find_problems(
    config: Config, paths: Paths, *, device: str, skip_missing: bool = False, features: bool = True
) -> list[MesmError]:
    """Return the problems that keep a run from starting; empty if there are none."""
    problems: list[MesmError] = []
    _tried(problems, partial(build_device, device))
    _tried(problems, partial(check_select, config))
    _tried(problems, partial(build_criterion, config.loss, config.model))
    queries: dict[str, Sequence[Query]] = {}
    for split in dict.fromkeys((config.dataset.train, *config.select_splits)):
        read = _tried(problems, partial(_queries, config, paths, split))
        if read:
            queries[split] = read
    if features:
        _features(problems, config, paths, queries, skip_missing=skip_missing)
    for check in text_checks(config, paths):
        _tried(problems, check)
    return problems


def _tried(problems: list[MesmError], check: Callable[[], Result]) -> Result | None:
    """Return the result of a check; if it fails, add the error to ``problems`` and return None."""
    try:
        return check()
    except MesmError as error:
        problems.append(error)
        return None


def _queries(config: Config, paths: Paths, split: str) -> Sequence[Query]:
    queries = read_split(config.dataset.name, paths.annotations, named_split(config.dataset, split)).queries
    if split in config.select_splits and not all(query.windows for query in queries):
        raise DataError(
            f"{split} has queries without windows, so it cannot choose a checkpoint.",
            hint="Name a split that has them: --set dataset.eval=SPLIT.",
        )
    return queries


def _features(
    problems: list[MesmError],
    config: Config,
    paths: Paths,
    queries: dict[str, Sequence[Query]],
    *,
    skip_missing: bool,
) -> None:
    stores = [_tried(problems, partial(_store, config, paths, [path])) for path in paths.features]
    for store in stores:
        if store is not None:
            store.close()
    if None in stores:
        return
    store = _store(config, paths, paths.features)
    try:
        for split in queries.values():
            vids = list(dict.fromkeys(query.vid for query in split))
            if not skip_missing or len(store.missing(vids)) == len(vids):
                _tried(problems, partial(store.require, vids))
        first = next((query.vid for split in queries.values() for query in split if query.vid in store), None)
        if first is not None:
            _tried(problems, partial(store.get, first))  # a wrong width
    finally:
        store.close()


def _store(config: Config, paths: Paths, files: Sequence[Path]) -> FeatureStore:
    return build_features(config, replace(paths, features=tuple(files)))
