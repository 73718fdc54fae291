"""Draws answers on a time axis, as a page or, with matplotlib, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mesm_core.errors import OutputError, count
from mesm_core.files import write_atomically
from mesm_core.inference.answer_texts import certainty, confidence_texts
from mesm_core.inference.asking import Reply
from mesm_core.pages.page import axis, clock, lane, page, paragraph, saliency_lane, section

if TYPE_CHECKING:  # Jinja2 is loaded when a page is written
    from markupsafe import Markup

FORMATS = (".html", ".png", ".svg")


def check_plot(path: Path) -> None:
    """Check that a plot can be drawn, before any work is done.

    Raises:
        OutputError: the suffix is unknown, or matplotlib is needed and not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: a plot ends in {', '.join(FORMATS)}.")
    if path.suffix.lower() != ".html":
        try:
            import matplotlib as _  # noqa: F401
        except ImportError:
            raise OutputError(
                f"{path.suffix} plots are drawn by matplotlib, which is not installed.",
                hint="pip install 'mesm[plot]', or give a .html file, which needs nothing.",
            ) from None


def write_plot(path: Path, replies: Sequence[Reply], *, top: int, overwrite: bool = False) -> None:
    """Write a page or a picture with a timeline for each reply: its ``top`` moments and the saliency curve.

    Raises:
        OutputError: the file exists and ``overwrite`` is off.
    """
    if path.suffix.lower() == ".html":
        content = _page(replies, top).encode()
    else:
        content = _drawn(replies, top, form=path.suffix.lower()[1:])
    write_atomically(path, content, overwrite=overwrite)


def _page(replies: Sequence[Reply], top: int) -> str:
    videos = list(dict.fromkeys(reply.question.vid for reply in replies))
    shown = videos[0] if len(videos) == 1 else count(len(videos), "video")
    return page("Moments", f"{count(len(replies), 'query')} about {shown}", (_answer(reply, top) for reply in replies))


def _answer(reply: Reply, top: int) -> Markup:
    lanes = []
    for rank, moment in enumerate(reply.answer.moments[:top], start=1):
        what = f"{clock(moment.start)} – {clock(moment.end)}, {certainty(moment)}"
        name = f"{rank}. {clock(moment.start)}"
        lanes.append(lane(name, [(moment.start, moment.end, what)], duration=reply.duration, colour=0))
    parts = [
        *(paragraph(text) for text in confidence_texts(reply.answer)),
        *lanes,
        saliency_lane(reply.answer.saliency, share=reply.answer.seen / reply.duration),
        axis(reply.duration),
    ]
    return section(f"{reply.question.query}  ({reply.question.vid})", *parts)


def _drawn(replies: Sequence[Reply], top: int, *, form: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.2 * len(replies)), layout="constrained")
    rows = figure.subplots(len(replies), squeeze=False)[:, 0]
    for axes, reply in zip(rows, replies, strict=True):
        moments = reply.answer.moments[:top]
        for rank, moment in enumerate(moments):
            axes.barh(-rank, moment.end - moment.start, left=moment.start, height=0.7, color="tab:blue")
            sure = moment.score if moment.confidence is None else moment.confidence
            axes.annotate(f"{sure:.2f}", (moment.end, -rank), va="center", fontsize=8)
        saliency = reply.answer.saliency
        curve = axes.twinx()
        at = [(i + 0.5) * reply.answer.seen / len(saliency) for i in range(len(saliency))]
        curve.plot(at, saliency, color="tab:purple", linewidth=1)
        curve.set_yticks([])
        axes.set(xlim=(0, reply.duration), yticks=[], ylim=(-max(len(moments), 1) + 0.4, 0.6), xlabel="seconds")
        axes.set_title(f"{reply.question.query}  ({reply.question.vid})", loc="left", fontsize=10)
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=150)
    return picture.getvalue()
