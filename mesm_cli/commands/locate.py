"""``mesm locate``: find moments in video files; write them as text, clips or a page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mesm_cli import options, render
from mesm_cli.answer_warnings import AnswerWarnings, note_no_confidence
from mesm_cli.commands.extract_options import PrecisionOption, Weights, weights_by_name
from mesm_cli.commands.locate_options import (
    SHOWN,
    ClipLen,
    Cut,
    Fast,
    Form,
    FormatOption,
    Model,
    Output,
    Page,
    Queries,
    Query,
    Top,
    Videos,
    Words,
    Yes,
    chosen_form,
)
from mesm_cli.commands.probe import seconds_of
from mesm_cli.missing_weights import fetch_missing

if TYPE_CHECKING:
    from mesm_core.extraction.pipeline import Failed
    from mesm_core.inference.clips import CutClip
    from mesm_core.inference.locate import Located, Locator

PIPE = Path("-")


def locate(
    words: Words = None,
    video: Videos = None,
    query: Query = None,
    queries: Queries = None,
    model: Model = None,
    top: Top = SHOWN,
    nms: options.Nms = 0.7,
    window: options.Window = "auto",
    independent: options.Independent = False,
    min_confidence: options.MinConfidence = None,
    weights: Weights = None,
    clip: options.Clip = None,
    clip_len: ClipLen = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    precision: PrecisionOption = None,
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
    """Find the moments that sentences describe in video files.

    The features of each video are extracted and cached, so the next query about it is fast. `mesm cache` lists and
    clears the cache. Without --model the answers come from CLIP alone, which was not trained on moments: use them as
    a first look.

    Examples:

      mesm locate my.mp4 "a person opens the door"

      mesm locate my.mp4 "a door opens" --model best.pt --cut clips --page a.html
    """
    from mesm_core.inference.locate import Located, Locator, plan_location
    from mesm_core.places import refuse_inputs

    asked = _queries_by_video(words or [], video or [], query or [], queries)
    wanted = Wanted(chosen_form(Form, form, output, json_=json_), output, cut, fast, page, top, overwrite)
    wanted.check(list(asked))
    plan = plan_location(
        model,
        weights=weights_by_name(weights or []),
        clip=clip,
        clip_len=None if clip_len is None else seconds_of(clip_len),
        root=options.data_root(data_dir),
    )
    refuse_inputs([output, page], [*asked, *plan.inputs, queries, *map(Path, video or [])])
    if min_confidence is not None:
        plan.require_calibration()
    fetch_missing(plan, yes=yes)
    locator = Locator.from_plan(plan, device=device, precision=None if precision is None else precision.value)
    for warning in locator.warnings:
        render.warn(warning)
    events = _with_progress(locator, asked, nms=nms, window=window, independent=independent)
    if min_confidence is not None:
        events = (e.confident(min_confidence) if isinstance(e, Located) else e for e in events)
    outcome = _show(events, wanted)
    if wanted.shows and outcome.found:
        _show_confidence(outcome, trained=plan.model is not None, calibrated=locator.retriever.calibrated)
    if outcome.found:
        _write_files(outcome, wanted, locator)
    if outcome.found or wanted.form is Form.JSON:
        _write_answers(outcome, wanted, locator)
    outcome.raise_problems(len(asked))


@dataclass(frozen=True)
class Wanted:
    """The output that was asked for: the format of the answers and the files to write."""

    form: Form
    output: Path | None
    cut: Path | None
    fast: bool
    page: Path | None
    top: int
    overwrite: bool

    @property
    def shows(self) -> bool:
        """Whether answers are drawn on the screen as they are found."""
        return self.form is Form.TABLE

    def check(self, videos: Sequence[Path]) -> None:
        """Refuse outputs that cannot be written, before any work is done."""
        from mesm_core.inference.clips import check_clips
        from mesm_core.inference.exchange import common_rate
        from mesm_core.places import refuse_existing, refuse_inputs

        if self.form is Form.SRT and len(videos) > 1:
            raise typer.BadParameter(
                "subtitles are for one video: give one video, or use --format csv", param_hint="--format"
            )
        if self.form is Form.EDL:
            common_rate(videos)
        if self.fast and self.cut is None:
            raise typer.BadParameter("it needs --cut DIR", param_hint="--fast")
        for path in (self.output, self.page):
            if path is not None:
                refuse_existing(path, overwrite=self.overwrite)
        if self.page is not None and self.page.suffix.lower() not in {".html", ".htm"}:
            raise typer.BadParameter(f"{self.page}: the file name of a page must end in .html", param_hint="--page")
        if self.cut is not None:
            check_clips(self.cut)
        refuse_inputs([self.output, self.page], videos)


@dataclass
class Outcome:
    """The answers, the failed videos and the clips so far."""

    found: list[Located] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    clips: list[CutClip] = field(default_factory=list)

    def raise_problems(self, videos: int) -> None:
        """Raise an error if videos could not be read or moments could not be cut."""
        from mesm_core.errors import DataError, count

        if self.failed and videos == 1:
            raise DataError(*self.failed[0].reason.split("\n", 1)[:1], hint=_rest(self.failed[0].reason))
        problems = [failure.reason for failure in self.failed]
        what = f"{len(problems)} of {count(videos, 'video')} could not be read" if problems else ""
        uncut = [f"{clip.planned.target.name}: {clip.problem}" for clip in self.clips if clip.clip is None]
        if uncut:
            what = " and ".join(part for part in (what, f"{count(len(uncut), 'moment')} could not be cut") if part)
        if what:
            reasons = "\n".join(f"  {problem.splitlines()[0]}" for problem in (*problems, *uncut))
            raise DataError(f"{what}:\n{reasons}", hint="The others are done.")


def _rest(text: str) -> str | None:
    return text.partition("\n")[2] or None


def _queries_by_video(
    words: Sequence[str], videos: Sequence[str], queries: Sequence[str], file: Path | None
) -> dict[Path, list[str]]:
    """Return the queries about each video. Queries from a file may name the video that they are about."""
    from mesm_core.extraction.sources import split_words, video_paths
    from mesm_core.inference.locate import refuse_queries
    from mesm_core.inference.questions import queries_about

    named, sentences = split_words(words)
    if not (named or videos):
        raise typer.BadParameter("give a video: a file, a folder, or --video FILE", param_hint="VIDEO")
    if not (sentences or queries or file):
        raise typer.BadParameter("give a query: a sentence in quotes, or --queries FILE", param_hint="QUERY")
    for_all = [*sentences, *queries]
    if for_all:
        refuse_queries(for_all)
    paths = video_paths([*named, *videos])
    lines = None if file is None else sys.stdin if file == PIPE else file
    asked = queries_about(paths, for_all, lines)
    for own in asked.values():
        refuse_queries(own)
    return asked


def _with_progress(
    locator: Locator, asked: dict[Path, list[str]], *, nms: float, window: str, independent: bool
) -> Iterator[Located | Failed]:
    """Yield the answers, with the number of decoded frames shown on stderr."""
    with render.training_progress() as live:
        done = total = 0

        def progress(frames: int) -> None:
            nonlocal done, total
            if not total:
                from mesm_core.extraction.estimate import expected_frames

                total = max(expected_frames(list(asked)), 1)
            done += frames
            live.busy("Extracting features: frames", done, max(total, done))

        yield from locator.locate_many(asked, nms=nms, window=window, independent=independent, progress=progress)


def _show(events: Iterator[Located | Failed], wanted: Wanted) -> Outcome:
    """Draw the answers as they are found, and print their warnings."""
    from mesm_core.extraction.pipeline import Failed

    outcome, warnings = Outcome(), AnswerWarnings()
    for event in events:
        if isinstance(event, Failed):
            outcome.failed.append(event)
            continue
        outcome.found.append(event)
        name = str(event.video)
        for warning in event.warnings:
            warnings.warn(name, warning)
        for answer in event.answers:
            warnings.warn_about(answer, name)
            if wanted.shows:
                render.answer(answer, video=name, duration=event.duration, top=wanted.top)
    warnings.count_the_rest()
    return outcome


def _show_confidence(outcome: Outcome, *, trained: bool, calibrated: bool) -> None:
    """Print the videos by their confidence, for each query about several; or say that a model has no calibration."""
    from mesm_core.inference.locate import ranked_videos

    if not calibrated:
        if trained:  # zero-shot, which cannot be calibrated, has its own warning
            note_no_confidence()
        return
    for query, videos in ranked_videos(outcome.found).items():
        if len(videos) > 1:
            render.say("  videos by the confidence that they have an answer", title=query)
            render.table(["video", "confidence"], [[str(video), f"{sure:.0%}"] for video, sure in videos])


def _write_files(outcome: Outcome, wanted: Wanted, locator: Locator) -> None:
    """Write the clips and the page."""
    from mesm_core.errors import count
    from mesm_core.inference.clips import cut_clips, plan_clips
    from mesm_core.pages.located import write_located_page

    if wanted.cut is not None:
        planned = plan_clips(outcome.found, wanted.cut, top=wanted.top, fast=wanted.fast)
        with render.progress("Cutting", len(planned), unit="clips") as advance:
            for clip in cut_clips(planned, fast=wanted.fast, overwrite=wanted.overwrite):
                outcome.clips.append(clip)
                advance(1, "")
        done = [clip for clip in outcome.clips if clip.clip is not None]
        for clip in done if wanted.shows else []:
            render.note(f"Clip: {clip.planned.target}")
        if not wanted.shows:
            render.note(f"{count(len(done), 'clip')} in {wanted.cut}")
    if wanted.page is not None:
        note = " ".join(locator.warnings)
        write_located_page(wanted.page, outcome.found, top=wanted.top, note=note, overwrite=wanted.overwrite)
        render.note(f"Page: {wanted.page}")


def _write_answers(outcome: Outcome, wanted: Wanted, locator: Locator) -> None:
    """Write the answers to a file or stdout, in any format but the table."""
    from mesm_core.files import write_atomically
    from mesm_core.inference.exchange import texts

    if wanted.form is Form.TABLE:
        return
    if wanted.form is Form.JSON:
        text = json.dumps(_as_json(outcome, wanted, locator), ensure_ascii=False, indent=2) + "\n"
    else:
        text = texts(outcome.found, wanted.form.value, top=wanted.top)
    if wanted.output is None or wanted.output == PIPE:
        render.text(text)
        return
    write_atomically(wanted.output, text.encode(errors="backslashreplace"), overwrite=wanted.overwrite)
    render.note(f"Answers: {wanted.output}")


def _as_json(outcome: Outcome, wanted: Wanted, locator: Locator) -> dict[str, Any]:
    from mesm_core.inference.locate import ranked_videos

    plan = locator.plan
    return {
        "method": "zero-shot" if plan.model is None else "trained",
        "model": None if plan.model is None else str(plan.model),
        "notes": list(locator.warnings),
        "backbones": list(plan.recipe.backbones),
        "clip_len": float(plan.recipe.clip_len),
        "answers": [
            {"query": answer.query, "video": str(located.video), "duration": located.duration, "cached": located.cached}
            | answer.as_json(wanted.top)
            | {"warnings": [*located.warnings, *answer.warnings]}
            for located in outcome.found
            for answer in located.answers
        ],
        "ranking": [
            {"query": query, "videos": [{"video": str(video), "confidence": sure} for video, sure in videos]}
            for query, videos in ranked_videos(outcome.found).items()
        ],
        "failed": [{"video": str(failure.video.path), "reason": failure.reason} for failure in outcome.failed],
        "clips": [clip.as_json() for clip in outcome.clips],
        "page": None if wanted.page is None or not outcome.found else str(wanted.page),
    }
