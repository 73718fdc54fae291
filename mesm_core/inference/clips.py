"""Cuts the moments of answers into clips, files named by rank and time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesm_core.errors import DataError, OutputError
from mesm_core.files import replacing
from mesm_core.inference.answers import Moment
from mesm_core.inference.locate import Located
from mesm_core.places import refuse_existing, refuse_inputs
from mesm_core.video.cut import CONTAINERS, Clip, container_of, cut

MOST_OF_SLUG, MOST_OF_STEM = 40, 100
CLIP_SUFFIX, COPY_SUFFIX = ".mp4", ".mkv"
"""Suffixes of re-encoded clips, and of copied clips whose own container cannot be written."""


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """A moment and the file that its clip will be written to."""

    source: Path
    query: str
    rank: int
    moment: Moment
    target: Path


@dataclass(frozen=True, slots=True)
class CutClip:
    """The clip of a moment, or the reason why it could not be cut."""

    planned: PlannedClip
    clip: Clip | None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the clip as JSON-able values; ``cut_start`` and ``cut_end`` are its bounds in the source."""
        planned, made = self.planned, self.clip
        return {
            "video": str(planned.source),
            "query": planned.query,
            "rank": planned.rank,
            "start": planned.moment.start,
            "end": planned.moment.end,
            "path": None if made is None else str(planned.target),
            "cut_start": None if made is None else made.start,
            "cut_end": None if made is None else made.end,
            "problem": self.problem or None,
        }


def plan_clips(found: Sequence[Located], folder: Path, *, top: int, fast: bool = False) -> list[PlannedClip]:
    """Return the clips of the ``top`` moments of each answer: ``VIDEO_01_0012.4-0018.0.mp4`` in ``folder``.

    The number is the rank, and the times are in seconds. With several queries, the name contains the query, too. A
    number is appended if two videos or two queries would have the same name.
    """
    planned = []
    stems = _distinct([_shortened(located.video.stem) for located in found])
    several = len({answer.query for located in found for answer in located.answers}) > 1
    for located, stem in zip(found, stems, strict=True):
        source_suffix = located.video.suffix.lower()
        copy_suffix = source_suffix if source_suffix in CONTAINERS else COPY_SUFFIX
        suffix = copy_suffix if fast else CLIP_SUFFIX
        slugs = _distinct([slug(answer.query) for answer in located.answers])
        for answer, name in zip(located.answers, slugs, strict=True):
            front = f"{stem}_{name}" if several else stem
            for rank, moment in enumerate(answer.moments[:top], start=1):
                times = f"{moment.start:06.1f}-{moment.end:06.1f}"
                target = folder / f"{front}_{rank:02}_{times}{suffix}"
                planned.append(PlannedClip(located.video, answer.query, rank, moment, target))
    return planned


def check_clips(folder: Path) -> None:
    """Check that clips can be written to a folder, before any work is done.

    Raises:
        OutputError: the folder cannot be created or written, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; clips are written to a folder.", hint="Choose another name.")
    refuse_existing(folder / "clip.mp4", overwrite=True)


def cut_clips(planned: Sequence[PlannedClip], *, fast: bool = False, overwrite: bool = False) -> Iterator[CutClip]:
    """Write the clips one by one, each atomically, and yield the results.

    Nothing is written if a target exists and ``overwrite`` is off.

    Raises:
        OutputError: a target exists, or writing a clip failed; earlier clips are kept.
    """
    refuse_inputs([clip.target for clip in planned], [clip.source for clip in planned])
    for clip in planned:
        refuse_existing(clip.target, overwrite=overwrite)
    for clip in planned:
        try:
            with replacing(clip.target, overwrite=overwrite) as temporary:
                form = container_of(clip.target)
                made = cut(clip.source, temporary, clip.moment.start, clip.moment.end, container=form, fast=fast)
        except DataError as error:
            yield CutClip(clip, None, error.message)
        else:
            yield CutClip(clip, made)


def slug(query: str) -> str:
    """Return a sentence in a form that can be part of a file name.

    >>> slug("A person opens the door!"), slug("où est l'été ?"), slug("?!")
    ('a-person-opens-the-door', 'ou-est-l-ete', 'query')
    """
    plain = unicodedata.normalize("NFKD", query)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = re.sub(r"\W+", "-", plain.lower()).strip("-_")
    return words[:MOST_OF_SLUG].rstrip("-_") or "query"


def _shortened(stem: str) -> str:
    """Return a stem shortened so that the whole file name stays below 255 bytes."""
    return stem.encode("utf-8", "surrogateescape")[:MOST_OF_STEM].decode("utf-8", "ignore") or "video"


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number appended to each that repeats an earlier one.

    >>> _distinct(["a", "b", "a"])
    ['a', 'b', 'a-2']
    """
    given: set[str] = set()
    distinct = []
    for name in names:
        number, chosen = 1, name
        while chosen in given:
            number += 1
            chosen = f"{name}-{number}"
        given.add(chosen)
        distinct.append(chosen)
    return distinct
