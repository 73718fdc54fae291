"""The table of metrics: name -> function, and where its values are shown. One line adds a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mesm_core.metrics import moments
from mesm_core.metrics.moments import Answers

Figures = Mapping[str, float]
PerQuery = Mapping[str, np.ndarray]
MAIN = ("", "average")
"""Labels that are left out of the name of a value."""


@dataclass(frozen=True)
class Metric:
    """A line of the table.

    ``function``: takes ``Answers`` and returns fractions by label, e.g. by threshold; a single value has the label "";
    ``per_query``: the same as (Q,) values, whose means are the fractions; for intervals and for tests between systems;
    ``summary``: labels in the summary of all queries; ``by_length``: labels in the summary of each length range;
    ``rows``: labels in the table with a row for each length range;
    ``columns``: labels shown after an epoch and in the list of runs; ``curves``: labels plotted on a run's page and
    compared between runs.
    """

    function: Callable[[Answers], Figures]
    per_query: Callable[[Answers], PerQuery] | None = None
    summary: tuple[str, ...] = MAIN[:1]
    by_length: tuple[str, ...] = ()
    rows: tuple[str, ...] = MAIN
    columns: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    "R1": Metric(
        moments.recall_of_first,
        per_query=moments.first_hits,
        summary=("0.1", "0.3", "0.5", "0.7"),
        rows=("0.1", "0.3", "0.5", "0.7"),
        columns=("0.5",),
        curves=("0.5", "0.7"),
    ),
    "mIoU": Metric(moments.mean_iou, per_query=moments.first_iou, columns=("",), curves=("",)),
    "mAP": Metric(
        moments.mean_average_precision,
        per_query=moments.average_precisions,
        summary=("average", "0.5", "0.75"),
        by_length=("average",),
        curves=("average",),
    ),
}
"""Metrics of moment retrieval, in the order of the summary."""


def labelled(name: str, label: str) -> str:
    """Return the name of a value: the metric's name, followed by ``@`` and the label unless that is in ``MAIN``.

    >>> labelled("mAP", "average"), labelled("R1", "0.5")
    ('mAP', 'R1@0.5')
    """
    return name if label in MAIN else f"{name}@{label}"


def full_key(name: str) -> str:
    """Return the summary key of a value over all queries.

    >>> full_key("R1@0.5")
    'MR-full-R1@0.5'
    """
    return f"MR-full-{name}"


def column_names() -> list[str]:
    """Return the names of the values shown after an epoch and in the list of runs, mIoU first."""
    names = [labelled(name, label) for name, metric in METRICS.items() for label in metric.columns]
    return sorted(names, key=lambda name: name != "mIoU")


def curve_names() -> list[str]:
    """Return the names of the values plotted on a run's page and compared between runs, the columns first."""
    names = [labelled(name, label) for name, metric in METRICS.items() for label in metric.curves]
    return list(dict.fromkeys([*column_names(), *names]))


def summary_names() -> list[str]:
    """Return the names of the values in the summary of all queries; ``eval.select`` is one of them."""
    return [labelled(name, label) for name, metric in METRICS.items() for label in metric.summary]


def per_query_values(answers: Answers) -> dict[str, np.ndarray]:
    """Return the (Q,) values whose means are in the summary, by summary key."""
    return {
        full_key(labelled(name, label)): values
        for name, metric in METRICS.items()
        if metric.per_query is not None
        for label, values in metric.per_query(answers).items()
    }
