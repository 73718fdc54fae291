"""``mesm probe``."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesm_cli import options, render

if TYPE_CHECKING:
    from mesm_core.video.probe import Probe

SHORTEST, LONGEST = Fraction(1, 1000), 3600

ClipLen = Annotated[
    str,
    typer.Option(
        "--clip-len", metavar="SECONDS", help="With --rows: seconds that each row covers, e.g. 2, 0.5 or 1/3."
    ),
]


def probe(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Video file (.mp4, .mkv, .webm, .avi, .mov …).")],
    rows: Annotated[
        bool, typer.Option("--rows", help="Also list the time and the frame of each row of features.")
    ] = False,
    clip_len: ClipLen = "2",
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the properties of a decoded video: actual duration, frame rate, rotation, damaged packets.

    The whole video is decoded, since headers can be wrong. With --rows the frame of each row of features is listed.

    Example:

      mesm probe my.mp4 --rows --clip-len 2
    """
    from mesm_core.video.probe import probe as look

    seconds = seconds_of(clip_len)
    with render.progress("Decoding", None, unit="frames") as advance:
        found = look(video, clip_len=seconds if rows else None, progress=lambda _: advance(1, ""))
    if json_:
        render.data(found.as_json())
        return
    _show(found)
    if rows:
        render.say()
        render.table(["row", "time (s)", "frame"], [(r.row, f"{r.time_s:.3f}", r.frame) for r in found.rows])


def seconds_of(text: str) -> Fraction:
    """Return the seconds of an option such as 2, 0.5 or 1/3. Refuse values outside of [0.001, 3600]."""
    try:
        seconds = Fraction(text)
    except (ValueError, ZeroDivisionError):
        seconds = Fraction(0)
    if not SHORTEST <= seconds <= LONGEST:
        raise typer.BadParameter(
            f"{text!r} is not a number of seconds from {float(SHORTEST):g} to {LONGEST}", param_hint="--clip-len"
        )
    return seconds


def _show(found: Probe) -> None:
    rate = f"{found.frame_rate:.3f} frames/s" + (", variable" if found.variable else "")
    said = found.header_duration_s
    differs = said is not None and abs(said - found.duration_s) > 0.1
    rows = [
        ("duration", f"{found.duration_s:.3f} s" + (f" (the header says {said:.3f} s)" if differs else "")),
        ("frames", f"{found.frames}, {rate}"),
        ("size", f"{found.width} × {found.height}"),
        ("rotation", f"{found.rotation}°" if found.rotation else "none"),
        ("damaged packets", str(found.skipped_packets)),
    ]
    rows += [(f"stream {stream['index']}", _stream(stream)) for stream in found.streams]
    render.pairs(rows)


def _stream(stream: dict[str, object]) -> str:
    parts = [f"{stream['type']}", f"{stream.get('codec', '')}"]
    if stream["type"] == "video":
        parts.append(f"{stream['width']} × {stream['height']}, {stream['pixel_format']}")
    elif stream["type"] == "audio":
        parts.append(f"{stream['sample_rate']} Hz, {stream['channels']} channels")
    return "  ".join(part for part in parts if part)
