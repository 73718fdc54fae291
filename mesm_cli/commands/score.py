"""``mesm score``: any system's submission against ground truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesm_cli import options, render
from mesm_cli.commands import score_groups
from mesm_cli.commands.family_tables import spread_text
from mesm_cli.confidence_tables import show_kept

if TYPE_CHECKING:
    from mesm_core.build.data import MetricSettings
    from mesm_core.data.annotations import Annotations
    from mesm_core.inference.submissions import Scored


class Format(StrEnum):
    """Formats of the summary."""

    TABLE = "table"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"


Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="PREDICTIONS... [TRUTH]",
        help="Submissions (.jsonl, .jsonl.gz), or folders of runs or families. The last file is the ground truth, "
        "unless --truth is given.",
    ),
]
Against = Annotated[
    list[Path] | None,
    typer.Option(
        "--against",
        help="Compare all PREDICTIONS, as one group of runs, with this group: submissions (repeatable), or the folder "
        "of a family.",
        show_default=False,
    ),
]
Truth = Annotated[
    Path | None, typer.Option("--truth", help="Ground truth in Moment-DETR's format.", show_default=False)
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="With --dataset: the split to use as ground truth. With folders: the predictions to score.",
        show_default=False,
    ),
]
Ci = Annotated[bool, typer.Option("--ci", help="Add bootstrap 95% confidence intervals of the main metrics.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap and of drawn permutations.")]
PerQuery = Annotated[
    Path | None,
    typer.Option(
        "--per-query", help="Write the IoU and AP of each query as JSON lines, worst first.", show_default=False
    ),
]
Partial = Annotated[bool, typer.Option("--allow-partial", help="Score only the queries that are in both files.")]
FormatOption = Annotated[Format, typer.Option("--format", help="Format of the summary.")]


def score(
    files: Files,
    truth: Truth = None,
    against: Against = None,
    dataset: options.Dataset = None,
    split: SplitOption = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    nms: options.Nms = -1,
    ci: Ci = False,
    seed: Seed = 0,
    per_query: PerQuery = None,
    allow_partial: Partial = False,
    format_: FormatOption = Format.TABLE,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Score the predictions of any system with the standard metrics. Several files are shown side by side.

    --against compares two groups of runs, for example two families of seeds: mean and standard deviation of each
    metric, and permutation tests that exchange the runs, and the answers about whole videos.

    Examples:

      mesm score predictions.jsonl highlight_val_release.jsonl

      mesm score ours.jsonl theirs.jsonl --truth truth.jsonl --ci

      mesm score runs/tacos-a --against runs/tacos-b --dataset tacos
    """
    from mesm_core.places import refuse_existing, refuse_inputs

    truth, files = _check_files(files, truth, dataset, split=split, annotations=annotations)
    _check_groups(against, ci=ci, per_query=per_query)
    known = _read_truth(truth, dataset, split=split, folder=annotations, data_dir=data_dir)
    first, second = (score_groups.find(paths, known.split) for paths in (files, against or []))
    if per_query is not None:
        refuse_existing(per_query, overwrite=overwrite)
        refuse_inputs([per_query], [*first.values(), *known.files])
    scored, others = (
        [known.score(path, nms=nms, allow_partial=allow_partial) for path in group.values()]
        for group in (first, second)
    )
    for warning in (text for result in (*scored, *others) for text in result.warnings):
        render.warn(warning)
    if against:
        about = [score_groups.Group(*group) for group in ((files, first, scored), (against, second, others))]
        score_groups.compare(about, seed=seed, form=None if json_ else str(format_))
        return
    one_family = len(files) == 1 and len(scored) > 1
    extras = _extras(scored, ci=ci, seed=seed, test=len(scored) > 1 and not one_family)
    if per_query is not None:
        _write_per_query(per_query, scored, overwrite=overwrite)
    if json_:
        objects = [result.tables | extra for result, extra in zip(scored, extras, strict=True)]
        render.data(objects[0] if len(objects) == 1 else dict(zip(map(str, first.values()), objects, strict=True)))
        return
    _show(scored, _short(list(first)), extras, known.annotations, format_, spread=one_family)


@dataclass(frozen=True)
class _Truth:
    """The ground truth: its queries, its files, the split that folders of runs are scored on, and metric settings."""

    annotations: Annotations
    files: list[Path]
    split: str | None
    settings: MetricSettings

    def score(self, path: Path, *, nms: float, allow_partial: bool) -> Scored:
        """Score a submission."""
        from mesm_core.inference.submissions import read_submission, score_submission

        queries = self.annotations.queries
        return score_submission(read_submission(path), queries, nms=nms, allow_partial=allow_partial, **self.settings)


def _read_truth(
    truth: Path | None, dataset: str | None, *, split: str | None, folder: Path | None, data_dir: Path | None
) -> _Truth:
    """Read the ground truth: a file, or a split of a dataset."""
    from mesm_core.build import metric_settings
    from mesm_core.config.load import load_config
    from mesm_core.data.readers import annotation_files
    from mesm_core.inference.submissions import read_truth
    from mesm_core.metrics.report import LENGTH_RANGES, SCORE_R1_THRESHOLDS

    if dataset is None:
        real = read_truth(truth)
        if real.repairs:
            made = ", ".join(f"{count} {what}" for what, count in real.repairs.items())
            render.warn(f"{truth}: windows were repaired before scoring: {made}")
        settings: MetricSettings = {"thresholds": SCORE_R1_THRESHOLDS, "ranges": LENGTH_RANGES}
        return _Truth(real, [truth] if truth is not None else [], split, settings)
    config = load_config(dataset)
    folder = folder or options.data_root(data_dir) / config.dataset.annotations
    chosen = split or config.dataset.eval[0]
    files = annotation_files(config.dataset.name, folder, [chosen])
    real = read_truth(None, dataset=config.dataset.name, folder=folder, split=chosen)
    return _Truth(real, files, chosen, metric_settings(config))


def _check_groups(against: list[Path] | None, *, ci: bool, per_query: Path | None) -> None:
    """Refuse options that have no effect on the comparison of two groups.

    Raises:
        typer.BadParameter: the message names the option.
    """
    for option, given in (("--ci", ci), ("--per-query", per_query is not None)):
        if against and given:
            raise typer.BadParameter("it has no effect with --against", param_hint=option)


def _check_files(
    files: list[Path], truth: Path | None, dataset: str | None, *, split: str | None, annotations: Path | None
) -> tuple[Path | None, list[Path]]:
    """Return the file of the ground truth (None with a dataset) and the submissions.

    Raises:
        typer.BadParameter: the options contradict each other, or one of them would have no effect.
    """
    if dataset is not None and truth is not None:
        raise typer.BadParameter(
            "the ground truth is a file or a split of a dataset: give --truth or --dataset, not both"
        )
    if dataset is None:
        folders = any(path.is_dir() for path in files)
        for option, value in (("--split", None if folders else split), ("--annotations", annotations)):
            if value is not None:
                raise typer.BadParameter(
                    "it needs --dataset NAME, whose annotations are the ground truth", param_hint=option
                )
        if truth is None and len(files) < 2:
            raise typer.BadParameter(
                "give predictions and the ground truth, or --dataset and --split", param_hint="TRUTH"
            )
        truth, files = (truth, files) if truth is not None else (files[-1], files[:-1])
    twice = [file for number, file in enumerate(files) if file in files[:number]]
    if twice:
        raise typer.BadParameter(f"{twice[0]} is given twice", param_hint="PREDICTIONS")
    return truth, files


def _extras(scored: list[Scored], *, ci: bool, seed: int, test: bool) -> list[dict[str, Any]]:
    """Return the intervals of each file with ``ci``, and its p-values against the first file with ``test``."""
    from mesm_core.metrics.bootstrap import interval, paired_p_value
    from mesm_core.metrics.report import percent
    from mesm_core.metrics.table import per_query_values

    extras: list[dict[str, Any]] = []
    if not ci and not test:
        return [{} for _ in scored]
    first = per_query_values(scored[0].answers)
    for number, result in enumerate(scored):
        extra: dict[str, Any] = {}
        values = per_query_values(result.answers)
        if ci:
            extra["ci95"] = {key: [percent(x) for x in interval(v, seed=seed)] for key, v in values.items()}
        if test and number and result.queries == scored[0].queries:
            extra["p_value_against_first"] = {
                key: round(paired_p_value(values[key], first[key], seed=seed), 4) for key in values
            }
        extras.append(extra)
    return extras


def _write_per_query(path: Path, scored: list[Scored], *, overwrite: bool) -> None:
    from mesm_core.files import write_atomically

    lines = []
    for result in scored:
        worst = sorted(range(len(result.queries)), key=lambda row: float(result.answers.scores.best_iou[row]))
        for row in worst:
            query = result.queries[row]
            record = {
                "file": str(result.submission.path),
                "qid": query.qid,
                "vid": query.vid,
                "query": query.sentence,
                "iou": round(float(result.answers.scores.best_iou[row]), 4),
                "ap": round(float(result.answers.scores.average_precision[row].mean()), 4),
            }
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines).encode(), overwrite=overwrite)


def _show(
    scored: list[Scored],
    names: list[str],
    extras: list[dict[str, Any]],
    truth: Annotations,
    format_: Format,
    *,
    spread: bool,
) -> None:
    """Print the summary of each file and its uncertainty; with ``spread``, also the mean of all files."""
    from mesm_core.errors import count
    from mesm_core.metrics.spread import spreads

    keys = list(dict.fromkeys(key for result in scored for key in result.tables["brief"]))
    rows = [[key, *(_number(result.tables["brief"].get(key)) for result in scored)] for key in keys]
    more = [
        [key, name, _number(result.tables["brief"].get(key)), *_doubt(extra, key)]
        for key in keys
        for name, result, extra in zip(names, scored, extras, strict=True)
        if any(key in part for part in extra.values())
    ]
    columns = ["metric", *names]
    if spread:
        columns.append("mean ± sd")
        found = spreads([result.tables["brief"] for result in scored])
        rows = [[*row, spread_text(found.get(str(row[0]))) or "–"] for row in rows]
    about = ["metric", "file", "value", "95% interval", "p against the first"]
    if format_ is not Format.TABLE:
        render.raw(columns, rows, form=str(format_))
        if more:
            render.raw(about, more, form=str(format_))
        return
    render.say(f"{len(scored[0].queries)} of {count(len(truth.queries), 'query')}; figures in %")
    render.table(columns, rows)
    if more:
        render.say()
        render.table(about, more)
    for name, result in zip(names, scored, strict=True):
        if "confidence" in result.tables:
            render.say()
            show_kept(result.tables["confidence"], name=name)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _doubt(extra: dict[str, Any], key: str) -> tuple[str, str]:
    low, high = extra.get("ci95", {}).get(key, (None, None))
    p = extra.get("p_value_against_first", {}).get(key)
    return "–" if low is None else f"{low:.2f} to {high:.2f}", "–" if p is None else f"{p:.3f}"


def _short(names: list[str]) -> list[str]:
    """Return the file names without their common ending, to keep columns narrow."""
    if len(names) < 2:
        return names
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*(reversed(name) for name in names), strict=False))
    tail = "".join(column[0] for column in shared)[::-1]
    tail = tail[tail.index(".") :] if "." in tail else ""  # whole words only
    shorter = [name.removesuffix(tail) for name in names]
    return shorter if all(shorter) else names
