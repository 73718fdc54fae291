"""``mesm search``: find the moments that sentences describe in the videos of an index."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesm_cli import completion, options, render
from mesm_cli.answer_warnings import note_no_confidence
from mesm_cli.commands.extract_options import Weights, weights_by_name
from mesm_cli.commands.locate_options import WHAT, Cut, Fast, Page, Yes, chosen_form
from mesm_cli.missing_weights import fetch_missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mesm_core.search.loading import SearchPlan
    from mesm_core.search.results import Found, Results
    from mesm_core.search.searcher import Searcher

PIPE = Path("-")
FILTER = "Which videos"


class Form(StrEnum):
    """Formats of the results."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class Stage(StrEnum):
    """Where the search ends."""

    ONE = "one"
    TWO = "two"


class Order(StrEnum):
    """What orders the moments of different videos."""

    CONFIDENCE = "confidence"
    SIMILARITY = "similarity"


Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index, made by `mesm index build`.")]
Words = Annotated[
    list[str] | None, typer.Argument(metavar="QUERY...", help="Sentences, each in quotes.", show_default=False)
]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        metavar="FILE",
        help="File of queries, one per line: a sentence, or JSON with query. - reads stdin.",
        show_default=False,
        rich_help_panel=WHAT,
    ),
]
Like = Annotated[
    str | None,
    typer.Option(
        "--like",
        metavar="VIDEO@START-END",
        help="Find moments that look like this one instead: door.mp4@12.5-18.",
        show_default=False,
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="CKPT",
        help="Trained model of the second stage: best.pt of a run, or a published checkpoint. Default: zero-shot.",
        show_default=False,
        autocompletion=completion.retrievers,
    ),
]
Top = Annotated[int, typer.Option("--top", min=1, max=1000, help="Number of moments for each query.")]
VideosGlob = Annotated[
    str | None,
    typer.Option(
        "--videos",
        metavar="GLOB",
        help="Search only videos with a name or path like this: '2026-*'.",
        show_default=False,
        rich_help_panel=FILTER,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="DATE",
        help="Search only files that were changed on this date or later: 2026-05-01.",
        show_default=False,
        rich_help_panel=FILTER,
    ),
]
StageOption = Annotated[
    Stage,
    typer.Option(
        "--stage",
        help="one: return the spans of stage one, which compares vectors only; two: let the model find the moments in "
        "them.",
    ),
]
OrderOption = Annotated[
    Order,
    typer.Option(
        "--order",
        help="Order of the moments of stage two: by confidence, where the model is calibrated; or by the similarity of "
        "their spans.",
    ),
]
FormatOption = Annotated[
    Form | None,
    typer.Option(
        "--format",
        help="table, json or csv. Default: by the ending of --output, else table.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Write the results to this file.", show_default=False, rich_help_panel=options.OUTPUT
    ),
]


def search(
    index: Folder,
    words: Words = None,
    queries: Queries = None,
    like: Like = None,
    model: Model = None,
    top: Top = 10,
    videos: VideosGlob = None,
    since: Since = None,
    min_confidence: options.MinConfidence = None,
    stage: StageOption = Stage.TWO,
    order: OrderOption = Order.CONFIDENCE,
    weights: Weights = None,
    clip: options.Clip = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    yes: Yes = False,
    cut: Cut = None,
    fast: Fast = False,
    page: Page = None,
    form: FormatOption = None,
    output: Output = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the moments that sentences describe in the videos of an index.

    Stage one compares the sentence with the vectors of all segments. In stage two a moment model looks at the best
    spans with their surroundings and says when the moment begins and ends. The order is by confidence where the model
    is calibrated, else by the similarity of stage one.

    Examples:

      mesm search holidays.index "a dog jumps into the water"

      mesm search holidays.index "a door opens" --model best.pt --top 3 --cut clips

      mesm search holidays.index --like beach.mp4@12.5-18
    """
    from mesm_core.places import refuse_inputs
    from mesm_core.search.loading import plan_search
    from mesm_core.search.searcher import Searcher

    chosen = chosen_form(Form, form, output, json_=json_)
    sentences = _sentences(words or [], queries, like)
    _check_outputs(output, page, cut, fast=fast, overwrite=overwrite)
    planned = plan_search(
        index, model, weights=weights_by_name(weights or []), clip=clip, root=options.data_root(data_dir)
    )
    if output is not None or page is not None:
        refuse_inputs([output, page], [*planned.plan.inputs, queries, *planned.index.files()])
    if min_confidence is not None:
        planned.plan.require_calibration()
    plain = Searcher(planned.index, None)
    which = plain.choose(videos=videos, since=since)
    example = None if like is None else plain.find_example(like)
    searcher = plain if example else _searcher(planned, stage, device=device, yes=yes)
    number = 1 if stage is Stage.ONE else 2
    if example is not None:
        results = [searcher.search_like(example, top=top, videos=which, stage=number)]
    else:
        with render.progress("Searching", len(sentences), unit="queries") as advance:
            results = searcher.search(
                sentences,
                top=top,
                videos=which,
                stage=number,
                order=order.value,
                min_confidence=min_confidence,
                progress=lambda done: advance(done, ""),
            )
    _show(results, chosen, searcher, stage)
    _write_clips(results, cut, fast=fast, overwrite=overwrite)
    if page is not None:
        _write_page(results, page, planned, overwrite=overwrite)
    if chosen is not Form.TABLE:
        _write(results, chosen, output, planned, stage, overwrite=overwrite)


def _check_outputs(output: Path | None, page: Path | None, cut: Path | None, *, fast: bool, overwrite: bool) -> None:
    """Refuse outputs that cannot be written, before any work is done."""
    from mesm_core.inference.clips import check_clips
    from mesm_core.places import refuse_existing

    if fast and cut is None:
        raise typer.BadParameter("it needs --cut DIR", param_hint="--fast")
    for path in (output, page):
        if path is not None and path != PIPE:
            refuse_existing(path, overwrite=overwrite)
    if cut is not None:
        check_clips(cut)


def _searcher(planned: SearchPlan, stage: Stage, *, device: str, yes: bool) -> Searcher:
    """Return the searcher of sentences, after missing weights were downloaded."""
    from mesm_core.search.loading import searcher_of

    fetch_missing(planned.plan, yes=yes)
    searcher = searcher_of(planned, device=device)
    for warning in planned.warnings if stage is Stage.TWO else ():
        render.warn(warning)
    return searcher


def _sentences(words: Sequence[str], file: Path | None, like: str | None) -> list[str]:
    from mesm_core.inference.locate import refuse_queries
    from mesm_core.inference.questions import read_sentences

    if like is not None:
        if words or file:
            raise typer.BadParameter("give a query or a moment to compare with, not both", param_hint="--like")
        return []
    found = [*words, *([] if file is None else read_sentences(sys.stdin if file == PIPE else file))]
    if not found:
        raise typer.BadParameter("give a query: a sentence in quotes, or --queries FILE", param_hint="QUERY")
    refuse_queries(found)
    return found


def _show(results: Sequence[Results], form: Form, searcher: Searcher, stage: Stage) -> None:
    """Print a table for each query."""
    from mesm_core.search.outputs import shown_names

    names = shown_names(searcher.index.videos.values()) if form is Form.TABLE else {}
    for result in results:
        for warning in result.warnings:
            render.warn(warning)
        if form is not Form.TABLE:
            continue
        render.say("", title=result.query)
        if result.found:
            render.table(*_table(result.found, names))
        elif result.rejected is not None:
            best = result.rejected
            render.say(
                f"  No confident answer. The best one: {_place(best, names)}, confidence {best.confidence or 0:.0%}."
            )
        else:
            render.say("  Nothing found.")
    trained = form is Form.TABLE and stage is Stage.TWO and searcher.trained
    if trained and not searcher.calibrated and any(result.found for result in results):
        note_no_confidence()


def _table(found: Sequence[Found], names: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    from mesm_core.pages.page import clock

    calibrated = found[0].confidence is not None
    columns = ["", "video", "start", "end", "similarity", *(["confidence"] if calibrated else [])]
    rows = [
        [str(rank), names[one.video.id], clock(one.start), clock(one.end), f"{one.similarity:.3f}"]
        + ([f"{one.confidence or 0:.0%}"] if calibrated else [])
        for rank, one in enumerate(found, start=1)
    ]
    return columns, rows


def _place(found: Found, names: Mapping[str, str]) -> str:
    from mesm_core.pages.page import clock

    return f"{names[found.video.id]}, {clock(found.start)} – {clock(found.end)}"


def _write_clips(results: Sequence[Results], folder: Path | None, *, fast: bool, overwrite: bool) -> None:
    from mesm_core.errors import DataError, count
    from mesm_core.inference.clips import cut_clips
    from mesm_core.search.outputs import plan_search_clips

    if folder is None:
        return
    planned = plan_search_clips(results, folder, fast=fast)
    problems = []
    with render.progress("Cutting", len(planned), unit="clips") as advance:
        for clip in cut_clips(planned, fast=fast, overwrite=overwrite):
            if clip.clip is None:
                problems.append(f"  {clip.planned.target.name}: {clip.problem}")
            advance(1, "")
    render.note(f"{count(len(planned) - len(problems), 'clip')} in {folder}")
    features = sum(not found.video.is_video for result in results for found in result.found)
    if features:
        render.note(f"{count(features, 'moment')} cannot be cut, since the index has features without their video.")
    if problems:
        raise DataError(f"{count(len(problems), 'moment')} could not be cut:\n" + "\n".join(problems))


def _write_page(results: Sequence[Results], page: Path, planned: SearchPlan, *, overwrite: bool) -> None:
    from mesm_core.pages.located import write_located_page
    from mesm_core.search.outputs import by_video

    found = by_video(results)
    most = max((len(result.found) for result in results), default=1)
    write_located_page(page, found, top=max(most, 1), note=" ".join(planned.warnings), overwrite=overwrite)
    render.note(f"Page: {page}")


def _write(
    results: Sequence[Results],
    form: Form,
    output: Path | None,
    planned: SearchPlan,
    stage: Stage,
    *,
    overwrite: bool,
) -> None:
    from mesm_core.files import write_atomically
    from mesm_core.search.outputs import csv_text

    if form is Form.CSV:
        text = csv_text(results)
    else:
        plan = planned.plan
        content = {
            "index": str(planned.index.path),
            "stage": stage.value,
            "method": "zero-shot" if plan.model is None else "trained",
            "model": None if plan.model is None else str(plan.model),
            "results": [result.as_json() for result in results],
        }
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    if output is None or output == PIPE:
        render.text(text)
        return
    write_atomically(output, text.encode(errors="backslashreplace"), overwrite=overwrite)
    render.note(f"Results: {output}")
