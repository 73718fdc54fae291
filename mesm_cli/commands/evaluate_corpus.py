"""``mesm eval --corpus``: evaluate a search in a collection of videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mesm_cli import render
from mesm_cli.commands.extract_options import weights_by_name

if TYPE_CHECKING:
    from mesm_core.inference.scoring import Job


def evaluate_corpus(
    job: Job, index: Path, weights: Sequence[str], *, root: Path | None, device: str, json_: bool
) -> None:
    """Ask the queries of a split of all videos of an index, and print the recall."""
    from mesm_core.errors import count
    from mesm_core.search import Index
    from mesm_core.search.corpus import evaluate_corpus as evaluate
    from mesm_core.search.loading import searcher_of_job

    queries = job.truth or job.dataset.queries
    searcher = searcher_of_job(Index.open(index), job, weights=weights_by_name(weights), root=root, device=device)
    with render.progress(f"Searching for {job.split}", len(queries), unit="queries") as advance:
        report = evaluate(searcher, queries, progress=lambda done: advance(done, ""))
    if json_:
        render.data({"split": job.split, "videos": report.videos, "queries": report.queries, "recall": report.rows})
        return
    render.say(
        f" on {job.split}: {count(report.queries, 'query')} in {count(report.videos, 'video')}", title=str(index)
    )
    columns = list(next(iter(report.rows.values())))
    rows = [[name, *(f"{row[column]:.2f}" for column in columns)] for name, row in report.rows.items()]
    render.table(["", *columns], rows)
