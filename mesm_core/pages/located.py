"""What was found in video files as a page: a player of each video, its moments to seek to, and the saliency."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from mesm_core.errors import count
from mesm_core.files import write_atomically
from mesm_core.inference.answers import Answer
from mesm_core.inference.locate import Located
from mesm_core.inputs import printable
from mesm_core.pages.page import COLOURS, axis, clock, page, paragraph, saliency_lane, section
from mesm_core.places import is_stream

PLAYER = """
video { display: block; width: 100%; max-height: 26rem; background: #000; border-radius: 4px; }
.moments { display: flex; flex-wrap: wrap; gap: .4rem; margin: .4rem 0; padding: 0; list-style: none; }
.moments button { font: inherit; font-size: .85rem; font-variant-numeric: tabular-nums; color: var(--ink);
  background: var(--track); border: 1px solid var(--line); border-left: 4px solid var(--c0); border-radius: 4px;
  padding: .25rem .6rem; cursor: pointer; }
.moments button:hover, .moments button:focus-visible { border-color: var(--c0); }
.moments button.on { background: var(--c0); color: #fff; }
.moments small { color: var(--soft); } .moments button.on small { color: inherit; }
.track.seek { display: block; cursor: pointer; } .seek button { position: absolute; top: 0; bottom: 0; min-width: 3px;
  padding: 0; border: 0; border-radius: 2px; box-shadow: 0 0 0 1px var(--paper); cursor: pointer; }
.head { position: absolute; top: -2px; bottom: -2px; width: 2px; margin-left: -1px; background: var(--c4); left: 0;
  pointer-events: none; }
.gone { color: var(--c2); }
"""
SCRIPT = """
for (const part of document.querySelectorAll('section.film')) {
  const film = part.querySelector('video'), seconds = Number(part.dataset.duration);
  const heads = part.querySelectorAll('.head'), buttons = part.querySelectorAll('button[data-start]');
  let end = null;
  const go = (start, until) => { film.currentTime = start; end = until; film.play().catch(() => {}); };
  for (const button of buttons) button.addEventListener('click', event => {
    event.stopPropagation();
    for (const other of buttons) other.classList.toggle('on', other === button);
    go(Number(button.dataset.start), Number(button.dataset.end));
    film.scrollIntoView({block: 'nearest'});
  });
  for (const track of part.querySelectorAll('.seek')) track.addEventListener('click', event => {
    const box = track.getBoundingClientRect();
    go((event.clientX - box.left) / box.width * seconds, null);
  });
  film.addEventListener('timeupdate', () => {
    for (const head of heads) head.style.left = 100 * film.currentTime / seconds + '%';
    if (end !== null && film.currentTime >= end) { film.pause(); end = null; }
  });
  film.addEventListener('error', () => { part.querySelector('.gone').hidden = false; }, true);
}
"""


def write_located_page(
    path: Path, found: Sequence[Located], *, top: int, note: str = "", overwrite: bool = False
) -> None:
    """Write a page about videos, with the ``top`` moments of each answer.

    Nothing is copied into it: the players name the video files relative to the page, so that both can be moved
    together.

    Args:
        note: said at the top.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    queries = len({answer.query for located in found for answer in located.answers})
    subtitle = f"{count(queries, 'query')} about {count(len(found), 'video')}"
    folder = Path.cwd() if is_stream(path) else Path(os.path.realpath(path)).parent
    body = [f"<style>{PLAYER}</style>"]
    body += [paragraph(note)] if note else []
    body += [_film(located, video_address(located.video, folder), top) for located in found]
    body.append(f"<script>{SCRIPT}</script>")
    write_atomically(path, page("Moments", subtitle, body).encode(), overwrite=overwrite)


def video_address(video: Path, folder: Path) -> str:
    """Return the address of a file relative to a page in ``folder``, with everything but letters written as %XX.

    >>> video_address(Path("/films/my #1 50%.mp4"), Path("/pages"))
    '../films/my%20%231%2050%25.mp4'
    """
    relative = os.path.relpath(os.path.join(os.path.realpath(video.parent), video.name), folder)  # noqa: PTH118
    return quote(os.fsencode(Path(relative).as_posix()))


def _film(located: Located, address: str, top: int) -> str:
    name = printable(located.video.name)
    parts = [
        f'<video controls preload="metadata" src="{escape(address)}" title="{escape(name)}"></video>',
        f'<p class="gone" hidden>The browser cannot play {escape(name)}: it must lie where it was when this page was '
        "made, in a format that browsers know (H.264 in an .mp4, or .webm).</p>",
        *(paragraph(warning) for warning in located.warnings),
        *(_answer(answer, located.duration, top) for answer in located.answers),
    ]
    return f'<div><section class="film" data-duration="{located.duration:.3f}"><h2>{escape(name)}</h2>\n' + (
        "\n".join(parts) + "</section></div>"
    )


def _answer(answer: Answer, duration: float, top: int) -> str:
    buttons: list[str] = []
    spans: list[tuple[float, str]] = []
    for rank, moment in enumerate(answer.moments[:top], start=1):
        times = f"{clock(moment.start)} – {clock(moment.end)}"
        at = f'type="button" data-start="{moment.start:.3f}" data-end="{moment.end:.3f}"'
        buttons.append(f"<li><button {at}>{rank}. {times} <small>{moment.score:.2f}</small></button></li>")
        left, width = 100 * moment.start / duration, 100 * (moment.end - moment.start) / duration
        colour = COLOURS[0 if rank == 1 else 5]
        style = f"left:{min(left, 99.7):.2f}%;width:{min(width, 100 - left):.2f}%;background:{colour}"
        what = escape(f"{rank}. {times}, score {moment.score:.2f}")
        spans.append((width, f'<button {at} style="{style}" title="{what}" aria-label="{what}"></button>'))
    drawn = "".join(span for _, span in sorted(spans, key=lambda span: -span[0]))  # short ones over long ones
    track = f'<span class="track seek">{drawn}<i class="head"></i></span>'
    return section(
        printable(answer.query),
        f'<ol class="moments">{"".join(buttons)}</ol>',
        f'<div class="lane"><span>moments</span>{track}</div>',
        saliency_lane(answer.saliency, share=answer.seen / duration),
        axis(duration),
        *(paragraph(warning) for warning in answer.warnings),
        level=3,
    )
