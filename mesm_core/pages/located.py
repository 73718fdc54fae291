"""A page of the moments found in video files: a player for each video, buttons that seek, and the saliency."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mesm_core.errors import count
from mesm_core.files import write_atomically
from mesm_core.inference.answer_texts import certainty, confidence_texts
from mesm_core.inference.answers import Answer
from mesm_core.inference.locate import Located
from mesm_core.inputs import printable
from mesm_core.pages.page import COLOURS, axis, bar, clock, page, paragraph, saliency_lane, section
from mesm_core.pages.templating import part
from mesm_core.places import is_stream

if TYPE_CHECKING:  # Jinja2 is loaded when a page is written
    from markupsafe import Markup


def write_located_page(
    path: Path, found: Sequence[Located], *, top: int, note: str = "", overwrite: bool = False
) -> None:
    """Write a page about videos, with the ``top`` moments of each answer.

    The page does not contain the videos: the players refer to the files relative to the page, so that page and files
    can be moved together.

    Args:
        note: text at the top of the page.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    queries = len({answer.query for located in found for answer in located.answers})
    subtitle = f"{count(queries, 'query')} about {count(len(found), 'video')}"
    folder = Path.cwd() if is_stream(path) else Path(os.path.realpath(path)).parent
    body = [paragraph(note)] if note else []
    body += [_film(located, video_address(located.video, folder), top) for located in found]
    content = page("Moments", subtitle, body, style="player.css", script="player.js")
    write_atomically(path, content.encode(), overwrite=overwrite)


def video_address(video: Path, folder: Path) -> str:
    """Return the address of a file relative to a page in ``folder``, percent-encoded.

    >>> video_address(Path("/films/my #1 50%.mp4"), Path("/pages"))
    '../films/my%20%231%2050%25.mp4'
    """
    relative = os.path.relpath(os.path.join(os.path.realpath(video.parent), video.name), folder)  # noqa: PTH118
    return quote(os.fsencode(Path(relative).as_posix()))


def _film(located: Located, address: str, top: int) -> Markup:
    answers = [_answer(answer, located.duration, top) for answer in located.answers]
    name = printable(located.video.name)
    return part("film", name, address, located.duration, located.warnings, answers, template="located.html")


def _answer(answer: Answer, duration: float, top: int) -> Markup:
    moments: list[dict[str, Any]] = []
    for rank, moment in enumerate(answer.moments[:top], start=1):
        left, width = bar(moment.start, moment.end, duration)
        moments.append(
            {
                "rank": rank,
                "start": moment.start,
                "end": moment.end,
                "certainty": certainty(moment),
                "times": f"{clock(moment.start)} – {clock(moment.end)}",
                "left": left,
                "width": width,
                "colour": COLOURS[0 if rank == 1 else 5],
            }
        )
    # Short moments are drawn over long ones.
    by_length = sorted(moments, key=lambda moment: moment["start"] - moment["end"])
    return section(
        printable(answer.query),
        *(paragraph(text) for text in confidence_texts(answer)),
        part("buttons", moments, template="located.html"),
        part("track", by_length, template="located.html"),
        *([saliency_lane(answer.saliency, share=answer.seen / duration)] if len(answer.saliency) else []),
        axis(duration),
        *(paragraph(warning) for warning in answer.warnings),
        level=3,
    )
