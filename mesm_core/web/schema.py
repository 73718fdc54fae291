"""What the API accepts and returns. Times are seconds from the start of the video."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mesm_core.web.jobs import State
from mesm_core.web.settings import MOST_RESULTS, MOST_VIDEOS, QUERY_CHARACTERS

VideoId = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$", description="Id of a video of the collection.")]
QueryText = Annotated[
    str, Field(min_length=1, max_length=QUERY_CHARACTERS, description="A sentence that describes a moment.")
]
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Top = Annotated[int, Field(ge=1, le=MOST_RESULTS, description="Largest number of moments.")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class LocateRequest(_In):
    """A query about one video."""

    video: VideoId
    query: QueryText
    top: Top = 10


class SearchRequest(_In):
    """A query about all videos."""

    query: QueryText
    top: Top = 30


class PrepareRequest(_In):
    """Videos to prepare; null: all that are not prepared."""

    videos: Annotated[list[VideoId], Field(min_length=1, max_length=MOST_VIDEOS)] | None = None


class Problem(BaseModel):
    """Why a request failed."""

    detail: str


class Health(BaseModel):
    """The server works."""

    status: str = "ok"
    version: str


class VideoItem(BaseModel):
    """A video. ``prepared``: its features are known, so that queries are answered at once."""

    id: str
    name: str
    prepared: bool


class VideoDetails(VideoItem):
    """A video with what its header says. ``media_type``: null if browsers cannot play the file; ask for clips then."""

    duration: float | None
    width: int
    height: int
    media_type: str | None


class VideoList(BaseModel):
    """A part of the collection.

    ``calibrated``: moments have a confidence; ``notes``: about the model; ``max_upload``: bytes of an upload, null if
    uploads are off.
    """

    videos: list[VideoItem]
    total: int
    prepared: int
    calibrated: bool
    notes: list[str]
    max_upload: int | None


class MomentItem(BaseModel):
    """A moment. ``score`` ranks moments; ``confidence``: P(IoU with the described moment >= 0.5), null without one."""

    start: float
    end: float
    score: float
    confidence: float | None


class Answer(BaseModel):
    """The answer to a query about one video.

    ``moments``: best first; ``saliency``: a ranking score of equal parts of the first ``seen`` seconds; ``confidence``:
    P(the video has an answer), null without a calibration.
    """

    video: str
    name: str
    query: str
    duration: float
    seen: float
    confidence: float | None
    moments: list[MomentItem]
    saliency: list[float]
    warnings: list[str]


class SearchResult(MomentItem):
    """A moment in one of the videos. ``similarity``: of its surroundings to the query, null without an index."""

    video: str
    name: str
    similarity: float | None


class SearchAnswer(BaseModel):
    """The moments of a search, best first. ``unprepared``: videos that were not searched."""

    query: str
    results: list[SearchResult]
    searched: int
    unprepared: int
    warnings: list[str]


class FailedVideo(BaseModel):
    """A video that cannot be prepared, and the reason."""

    video: str
    name: str
    reason: str


class JobStatus(BaseModel):
    """The preparation of videos. ``share``: how much is done, in [0, 1]; ``done`` of ``total`` videos are done."""

    id: str
    state: State
    share: float
    done: int
    total: int
    failed: list[FailedVideo]
    problem: str


class JobList(BaseModel):
    """The jobs that have not ended."""

    jobs: list[JobStatus]
