"""Compares two groups of submissions, e.g. the runs of two methods with several seeds each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mesm_core.errors import DataError
from mesm_core.inference.submissions import Scored
from mesm_core.metrics.permutation import Permutation, permute_runs, permute_videos
from mesm_core.metrics.spread import Spread, spreads
from mesm_core.metrics.table import per_query_values


@dataclass(frozen=True)
class Comparison:
    """A metric of two groups.

    ``first``, ``second``: its spread in each, in percent; ``runs``: test that exchanges runs between the groups;
    ``videos``: test that exchanges the answers about whole videos, or None if the metric has no values of queries.
    """

    first: Spread
    second: Spread
    runs: Permutation
    videos: Permutation | None

    @property
    def difference(self) -> float:
        """Mean of the first group minus that of the second."""
        return self.first.mean - self.second.mean

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-compatible values."""
        return {
            "first": self.first.as_json(),
            "second": self.second.as_json(),
            "difference": self.difference,
            "p_runs": asdict(self.runs),
            "p_videos": None if self.videos is None else asdict(self.videos),
        }


def compare_groups(first: Sequence[Scored], second: Sequence[Scored], *, seed: int) -> dict[str, Comparison]:
    """Return the comparison of each metric of the summary, by key.

    Args:
        first, second: scored submissions of each group; all answer the same queries.
        seed: of drawn permutations.

    Raises:
        DataError: two submissions were scored on different queries.
    """
    queries = first[0].queries
    other = next((run for run in (*first, *second) if run.queries != queries), None)
    if other is not None:
        raise DataError(
            f"{other.submission.path} and {first[0].submission.path} were scored on different queries.",
            hint="Groups are compared on the same queries: leave out --allow-partial, or the file.",
        )
    groups = [spreads([run.tables["brief"] for run in group]) for group in (first, second)]
    answers = [_mean_values(group) for group in (first, second)]
    names = {vid: number for number, vid in enumerate(dict.fromkeys(query.vid for query in queries))}
    videos = np.array([names[query.vid] for query in queries])
    found = {}
    for key in (key for key in groups[0] if key in groups[1]):
        a, b = groups[0][key], groups[1][key]
        runs = permute_runs(_known(a), _known(b), seed=seed)
        paired = (answers[0].get(key), answers[1].get(key))
        by_video = None
        if paired[0] is not None and paired[1] is not None:
            by_video = permute_videos(paired[0], paired[1], videos, seed=seed)
        found[key] = Comparison(a, b, runs, by_video)
    return found


def _mean_values(group: Sequence[Scored]) -> dict[str, np.ndarray]:
    """Return the (Q,) values of the queries, averaged over the runs of a group, by summary key."""
    values = [per_query_values(run.answers) for run in group]
    return {key: np.mean([of_run[key] for of_run in values], axis=0) for key in values[0]}


def _known(spread: Spread) -> np.ndarray:
    return np.array([value for value in spread.values if value is not None])
