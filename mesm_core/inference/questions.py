"""Reads queries about videos from files or pipes: one sentence or JSON object per line. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesm_core.data.annotations import is_number, query_id, video_id
from mesm_core.errors import DataError, did_you_mean
from mesm_core.inputs import has_surrogates, parse_json, shown, text_lines

ALL_VIDEOS = "\0"
"""Video id of a question about all videos; it is not a valid file name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query about a video; ``duration`` in seconds, or None to look it up."""

    qid: int | str
    vid: str
    query: str
    duration: float | None = None


def questions_of_file(path: Path, *, video: str | None, duration: float | None) -> Iterator[Question]:
    """Return the questions of a file, read lazily; a regular file is checked completely first.

    Args:
        video, duration: defaults for lines that have none.

    Raises:
        DataError: the file cannot be read, or a line is malformed or repeats an id; the message names the line.
    """

    def read() -> Iterator[Question]:
        lines = text_lines(path, what="file of queries")
        return read_questions(lines, source=str(path), video=video, duration=duration)

    if path.is_file():
        for _ in read():
            pass
    return read()


def read_questions(
    lines: Iterable[str], *, source: str, video: str | None, duration: float | None
) -> Iterator[Question]:
    """Yield the question of each line: a sentence, or a JSON object with ``query``, and ``vid``, ``qid``, ``duration``.

    The line number is the id of a question without ``qid``.

    Args:
        source: name of the source in messages; video, duration: defaults for lines that have none.

    Raises:
        DataError: a line is malformed, has no video, or repeats an id; the message names the line.
    """
    line_of_id: dict[int | str, int] = {}
    for number, line in _numbered(lines, source):
        if not line.strip():
            continue
        question = _question(line.strip(), number, f"{source}, line {number}", video, duration)
        earlier = line_of_id.setdefault(question.qid, number)
        if earlier != number:
            raise DataError(
                f"{source}: lines {earlier} and {number} have the same qid, {shown(question.qid)} (a line without "
                "'qid' has the number of the line).",
                hint="Give each query a different id: a submission with two answers to one id cannot be scored.",
            )
        yield question
    if not line_of_id:
        raise DataError(f"{source} has no queries.", hint="Give a sentence in quotes, or --queries FILE.")


def queries_about(
    videos: Sequence[Path], for_all: Sequence[str], lines: Path | Iterable[str] | None
) -> dict[Path, list[str]]:
    """Return the queries about each video file: ``for_all``, and those read from lines.

    Args:
        lines: a file, or lines as for ``read_questions``; a line with ``vid`` is about the video of that name only.

    Raises:
        DataError: the file cannot be read, a line is malformed, or its ``vid`` is not one of the videos.
    """
    asked = {path: list(for_all) for path in videos}
    if lines is None:
        return asked
    for question in _about_any_video(lines):
        about = [path for path in videos if question.vid in (ALL_VIDEOS, path.stem, path.name, str(path))]
        if not about:
            raise DataError(
                f"The query '{question.query[:60]}' has the vid '{question.vid}', which is not one of the "
                f"videos.{did_you_mean(question.vid, [path.stem for path in videos])}"
            )
        for path in about:
            asked[path].append(question.query)
    return {path: queries for path, queries in asked.items() if queries}


def read_sentences(lines: Path | Iterable[str]) -> list[str]:
    """Return the queries of a file, or of lines as for ``read_questions``; the videos that they name are ignored.

    Raises:
        DataError: the file cannot be read, or a line is malformed.
    """
    return [question.query for question in _about_any_video(lines)]


def _about_any_video(lines: Path | Iterable[str]) -> Iterable[Question]:
    if isinstance(lines, Path):
        return questions_of_file(lines, video=ALL_VIDEOS, duration=None)
    return read_questions(lines, source="standard input", video=ALL_VIDEOS, duration=None)


def _question(text: str, number: int, where: str, video: str | None, duration: float | None) -> Question:
    if has_surrogates(text):
        raise DataError(f"{where} is not UTF-8 text.")
    record: object = parse_json(text, where) if text.startswith("{") else {"query": text}
    if not isinstance(record, dict) or not isinstance(record.get("query"), str):
        raise DataError(f"{where}: 'query' must be a sentence.")
    if not record["query"].strip():
        raise DataError(f"{where}: the query is empty.")
    vid = record.get("vid", video)
    if vid is None:
        raise DataError(f"{where}: the line has no 'vid'.", hint="Give --video ID, or add 'vid' to the line.")
    seconds = record.get("duration", duration)
    if seconds is not None and not is_number(seconds):
        raise DataError(f"{where}: duration {shown(seconds)} is not a number of seconds.")
    qid = record.get("qid")
    return Question(number if qid is None else query_id(qid, where), video_id(vid, where), record["query"], seconds)


def _numbered(lines: Iterable[str], source: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers, without a byte-order mark."""
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            yield number, line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeDecodeError as error:
        raise DataError(f"{source}, line {number + 1} or after is not UTF-8 text.") from error
    except MemoryError as error:
        raise DataError(f"{source}, line {number + 1} is too long.") from error
    except OSError as error:  # such as a folder in place of standard input
        raise DataError(f"{source} cannot be read: {error.strerror}.") from error
