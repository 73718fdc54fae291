"""Formats moments for other programs: tables (.csv), subtitles (.srt) and edit lists (.edl, CMX3600)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from mesm_core.errors import DataError, listing
from mesm_core.inference.answer_texts import certainty
from mesm_core.inference.locate import Located
from mesm_core.inputs import printable
from mesm_core.video.source import Video

FORMATS = ("json", "csv", "srt", "edl")
COLUMNS = ("video", "query", "rank", "start", "end", "score", "confidence")
"""The confidence is empty for a model without calibration."""
USUAL_RATE = Fraction(25)
NTSC = 1001
"""Denominator of the frame rates of NTSC, such as 30000/1001."""


def csv_text(found: Sequence[Located], *, top: int) -> str:
    """Return a CSV table with one row per moment and times in seconds; fields are quoted where necessary."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for located in found:
        for answer in located.answers:
            for rank, moment in enumerate(answer.moments[:top], start=1):
                sure = "" if moment.confidence is None else round(moment.confidence, 4)
                place = (printable(str(located.video)), answer.query, rank)
                writer.writerow([*place, moment.start, moment.end, moment.score, sure])
    return text.getvalue()


def srt_text(found: Located, *, top: int) -> str:
    """Return the moments of a video as subtitles ordered by time: the query, and its rank if there are several."""
    rows = sorted(
        (moment.start, moment.end, rank, answer.query, min(len(answer.moments), top))
        for answer in found.answers
        for rank, moment in enumerate(answer.moments[:top], start=1)
    )
    blocks = []
    for number, (start, end, rank, query, count) in enumerate(rows, start=1):
        text = f"{rank}. {_one_line(query)}" if count > 1 else _one_line(query)
        blocks.append(f"{number}\n{_srt_time(start)} --> {_srt_time(end)}\n{text}\n")
    return "\n".join(blocks)


def edl_text(found: Sequence[Located], *, top: int, rate: Fraction) -> str:
    """Return the moments as a CMX3600 edit list of consecutive events.

    Timecodes count frames at the video's own rate, the first frame being 00:00:00:00: drop-frame for the rates of
    NTSC that have it (29.97, 59.94), non-drop for all others; the line ``FCM`` says which.

    Args:
        rate: frames a second of all of the videos.
    """
    code = Timecode(rate)
    lines = ["TITLE: mesm", f"FCM: {'DROP FRAME' if code.drops else 'NON-DROP FRAME'}", ""]
    number, at = 0, 0
    for located in found:
        for answer in located.answers:
            for rank, moment in enumerate(answer.moments[:top], start=1):
                first, last = code.frame(moment.start), code.frame(moment.end)
                last = max(last, first + 1)
                number += 1
                times = (first, last, at, at + last - first)
                at += last - first
                lines += [
                    f"{number:03d}  AX       V     C        {' '.join(code.text(frame) for frame in times)}",
                    f"* FROM CLIP NAME: {_one_line(located.video.name)}",
                    f"* COMMENT: {rank}. {_one_line(answer.query)} ({certainty(moment)})",
                    "",
                ]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Timecode:
    """Timecode (hours, minutes, seconds, frames) at a frame rate; drop-frame timecode at NTSC rates."""

    rate: Fraction

    @property
    def base(self) -> int:
        """Frame numbers per second of timecode."""
        return max(round(self.rate), 1)

    @property
    def drops(self) -> bool:
        """Whether frame numbers are dropped: at 30000/1001 frames per second and its multiples."""
        return self.base % 30 == 0 and abs(self.rate - Fraction(self.base * 1000, NTSC)) < Fraction(1, 1000)

    def frame(self, seconds: float) -> int:
        """Return the number of the frame nearest to a time."""
        return max(int(Fraction(seconds) * self.rate + Fraction(1, 2)), 0)

    def text(self, frame: int) -> str:
        """Return the timecode of a frame.

        >>> Timecode(Fraction(25)).text(1500), Timecode(Fraction(30000, 1001)).text(1800)
        ('00:01:00:00', '00:01:00;02')
        >>> Timecode(Fraction(30000, 1001)).text(17982), Timecode(Fraction(24000, 1001)).text(24)
        ('00:10:00;00', '00:00:01:00')
        """
        base = self.base
        if self.drops:
            dropped = base // 15  # in each minute, except every tenth
            ten, rest = divmod(frame, base * 600 - 9 * dropped)
            minutes = max((rest - dropped) // (base * 60 - dropped), 0)
            frame += 9 * dropped * ten + dropped * minutes
        seconds, frames = divmod(frame, base)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        mark = ";" if self.drops else ":"
        return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{frames:02}"


def common_rate(videos: Sequence[Path]) -> Fraction:
    """Return the frame rate of the videos from their headers; 25 if no header gives one.

    Videos that cannot be opened are ignored, since they have no moments.

    Raises:
        DataError: the videos have different frame rates, and an edit list can have only one.
    """
    rates: dict[Fraction, Path] = {}
    for path in videos:
        with suppress(DataError), Video(path) as video:
            rates.setdefault(video.average_rate or USUAL_RATE, path)
    if len(rates) > 1:
        described = listing(f"{path} has {float(rate):.3f}" for rate, path in rates.items())
        raise DataError(
            f"The videos have different frame rates ({described} frames/s), and an edit list can have only one.",
            hint="Write one edit list per video, or use --format csv.",
        )
    return next(iter(rates), USUAL_RATE)


def texts(found: Sequence[Located], form: str, *, top: int) -> str:
    """Return the moments in a format of ``FORMATS`` other than json.

    Raises:
        DataError: an edit list of videos with different frame rates.
    """
    if form == "csv":
        return csv_text(found, top=top)
    if form == "srt":
        return srt_text(found[0], top=top) if found else ""
    return edl_text(found, top=top, rate=common_rate([located.video for located in found]))


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _srt_time(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02},{rest % 1000:03}"
