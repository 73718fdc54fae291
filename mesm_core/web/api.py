"""The routes below ``/api``. The page uses nothing else."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from mesm_core.inference.answers import Moment
from mesm_core.inference.clips import slug
from mesm_core.inference.locate import Located
from mesm_core.version import __version__
from mesm_core.video.names import VIDEO_SUFFIXES
from mesm_core.web import schema
from mesm_core.web.collection import WebVideo
from mesm_core.web.jobs import Job
from mesm_core.web.ranges import file_response
from mesm_core.web.service import Service
from mesm_core.web.settings import CLIP_SECONDS, CURVE_POINTS, NAME_CHARACTERS

Responses = dict[int | str, dict[str, Any]]
PROBLEMS: Responses = {
    status: {"model": schema.Problem, "description": text}
    for status, text in {
        400: "The Host header is not one of this server's names.",
        401: "The token is missing or wrong.",
        403: "The request comes from the page of another server.",
        413: "The body is too large.",
        422: "The request is invalid, or the video cannot be read.",
        429: "Too many requests wait; try again later.",
        503: "The server stops, or the index or its engine cannot be reached.",
    }.items()
}
NOT_FOUND: Responses = {404: {"model": schema.Problem, "description": "There is no such video or job."}}
BYTES = {"schema": {"type": "string", "format": "binary"}}
RANGE: Responses = {
    206: {"description": "The part that the Range header asks for.", "content": {"video/*": BYTES}},
    416: {"model": schema.Problem, "description": "The range lies outside the file, or there are several."},
}


def api_router(service: Service) -> APIRouter:
    """Return the routes of the API."""
    router = APIRouter(prefix="/api", responses=PROBLEMS)
    _add_videos(router, service)
    _add_queries(router, service)
    _add_jobs(router, service)
    _add_media(router, service)
    if service.settings.uploads is not None:
        _add_upload(router, service, service.settings.uploads)
    return router


def _add_videos(router: APIRouter, service: Service) -> None:
    @router.get("/health", summary="Whether the server works; needs no token")
    async def health() -> schema.Health:
        return schema.Health(version=__version__)

    @router.get("/videos", summary="List the videos")
    async def videos(
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 1000
    ) -> schema.VideoList:
        return await service.quick.do(lambda: _video_list(service, offset, limit))

    @router.get("/videos/{video}", summary="Properties of a video", responses=NOT_FOUND)
    async def details(video: schema.VideoId) -> schema.VideoDetails:
        found = service.video(video)
        header = await service.pictures.do(lambda: service.media.header(found))
        prepared = await service.quick.do(lambda: service.collection.prepared(video))
        return schema.VideoDetails(
            id=found.id,
            name=found.name,
            prepared=prepared,
            duration=header.duration,
            width=header.width,
            height=header.height,
            media_type=header.media_type,
        )


def _video_list(service: Service, offset: int, limit: int) -> schema.VideoList:
    collection = service.collection
    videos = collection.videos()
    prepared = {key: collection.prepared(key) for key in videos}
    return schema.VideoList(
        videos=[
            schema.VideoItem(id=video.id, name=video.name, prepared=prepared[video.id])
            for video in list(videos.values())[offset : offset + limit]
        ],
        total=len(videos),
        prepared=sum(prepared.values()),
        calibrated=collection.calibrated,
        notes=list(collection.notes),
        max_upload=None if service.settings.uploads is None else service.settings.max_upload,
    )


def _add_queries(router: APIRouter, service: Service) -> None:
    collection = service.collection
    pending: Responses = {202: {"model": schema.JobStatus, "description": "Ask again when this job is done."}}

    @router.post("/locate", summary="Find moments in one video", responses={**NOT_FOUND, **pending})
    async def locate(asked: schema.LocateRequest, response: Response) -> schema.Answer | schema.JobStatus:
        video = service.video(asked.video)
        located = await service.queries.do(lambda: collection.locate(asked.video, asked.query))
        if located is None:
            response.status_code = 202
            return _status(service, service.jobs.start([asked.video]))
        return _answer(video, asked.query, located, asked.top)

    @router.post("/search", summary="Find moments in all prepared videos")
    async def search(asked: schema.SearchRequest) -> schema.SearchAnswer:
        found = await service.queries.do(lambda: collection.search(asked.query, top=asked.top))
        videos = collection.videos()
        return schema.SearchAnswer(
            query=asked.query,
            results=[
                schema.SearchResult(
                    video=hit.video,
                    name=videos[hit.video].name,
                    similarity=hit.similarity,
                    **hit.moment.as_json(),
                )
                for hit in found.hits
                if hit.video in videos  # an index may have been opened again meanwhile
            ],
            searched=found.searched,
            unprepared=max(len(videos) - found.searched, 0),
            warnings=list(found.warnings),
        )


def _answer(video: WebVideo, query: str, located: Located, top: int) -> schema.Answer:
    (answer,) = located.answers
    return schema.Answer(
        video=video.id,
        name=video.name,
        query=query,
        duration=located.duration,
        seen=answer.seen,
        confidence=answer.confidence,
        moments=[_moment(moment) for moment in answer.moments[:top]],
        saliency=shortened(answer.saliency),
        warnings=[*located.warnings, *answer.warnings],
    )


def _moment(moment: Moment) -> schema.MomentItem:
    return schema.MomentItem(**moment.as_json())


def shortened(saliency: np.ndarray) -> list[float]:
    """Return a saliency curve with at most ``CURVE_POINTS`` points: the maxima of equal parts.

    >>> shortened(np.array([0.5, 0.25])), len(shortened(np.zeros(9000)))
    ([0.5, 0.25], 2000)
    """
    if len(saliency) <= CURVE_POINTS:
        return [float(value) for value in saliency]
    starts = np.linspace(0, len(saliency), CURVE_POINTS, endpoint=False).astype(int)
    return [float(value) for value in np.maximum.reduceat(saliency, starts)]


def _add_jobs(router: APIRouter, service: Service) -> None:
    @router.post("/prepare", status_code=202, summary="Extract the features of videos", responses=NOT_FOUND)
    async def prepare(asked: schema.PrepareRequest) -> schema.JobStatus:
        wanted = list(service.collection.videos()) if asked.videos is None else list(dict.fromkeys(asked.videos))
        for key in wanted:
            service.video(key)
        return _status(service, service.jobs.start(wanted))

    @router.get("/jobs", summary="List the jobs that have not ended")
    async def jobs() -> schema.JobList:
        return schema.JobList(jobs=[_status(service, job) for job in service.jobs.open()])

    @router.get("/jobs/{job}", summary="How far a job is", responses=NOT_FOUND)
    async def job_status(job: schema.VideoId) -> schema.JobStatus:
        return _status(service, service.job(job))

    @router.delete("/jobs/{job}", summary="Cancel a job", responses=NOT_FOUND)
    async def cancel(job: schema.VideoId) -> schema.JobStatus:
        found = service.job(job)
        service.jobs.cancel(found)
        return _status(service, found)


def _status(service: Service, job: Job) -> schema.JobStatus:
    names = service.collection.videos()
    failed = [
        schema.FailedVideo(video=key, name=names[key].name, reason=reason) for key, reason in list(job.failed.items())
    ]
    return schema.JobStatus(
        id=job.id,
        state=job.state,
        share=job.share,
        done=job.done,
        total=len(job.videos),
        failed=failed,
        problem=job.problem,
    )


def _add_media(router: APIRouter, service: Service) -> None:
    @router.get(
        "/videos/{video}/file",
        summary="The file of a video, or a part of it",
        response_class=Response,
        responses={**NOT_FOUND, **RANGE, 200: {"content": {"video/*": BYTES}}},
    )
    async def file(video: schema.VideoId, request: Request) -> Response:
        found = service.video(video)
        header = await service.pictures.do(lambda: service.media.header(found))
        kind = header.media_type or "application/octet-stream"
        return file_response(found.path, kind, request=request, headers={})

    @router.get(
        "/thumbnail/{video}",
        summary="A frame of a video as JPEG",
        response_class=Response,
        responses={**NOT_FOUND, 200: {"content": {"image/jpeg": BYTES}}},
    )
    async def thumbnail(video: schema.VideoId, time: Annotated[schema.Seconds, Query()] = 0.0) -> Response:
        found = service.video(video)
        path = await service.pictures.do(lambda: service.media.thumbnail(found, round(time, 1)))
        content = await service.quick.do(path.read_bytes)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @router.get(
        "/clip/{video}",
        summary=f"A part of a video as MP4 (H.264 and AAC), at most {CLIP_SECONDS:g} s",
        response_class=Response,
        responses={**NOT_FOUND, **RANGE, 200: {"content": {"video/mp4": BYTES}}},
    )
    async def clip(
        video: schema.VideoId,
        request: Request,
        start: Annotated[schema.Seconds, Query()],
        end: Annotated[schema.Seconds, Query()],
        download: bool = False,
        preview: Annotated[bool, Query(description="Smaller and of less quality, but made faster.")] = False,
    ) -> Response:
        found = service.video(video)
        if not 0 < end - start <= CLIP_SECONDS:
            raise HTTPException(422, f"end must be after start, by at most {CLIP_SECONDS:g} seconds.")
        path = await service.clips.do(
            lambda: service.media.clip(found, round(start, 2), round(end, 2), preview=preview)
        )
        name = f"{slug(Path(found.name).stem)}_{start:06.1f}-{end:06.1f}.mp4"
        headers = {"content-disposition": f'attachment; filename="{name}"'} if download else {}
        return file_response(path, "video/mp4", request=request, headers=headers)


def _add_upload(router: APIRouter, service: Service, folder: Path) -> None:
    @router.post(
        "/videos",
        status_code=201,
        summary="Upload a video as the body of the request",
        openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": BYTES}}},
    )
    async def upload(
        request: Request,
        name: Annotated[str, Query(min_length=1, max_length=NAME_CHARACTERS, description="Name of the file.")],
    ) -> schema.VideoItem:
        suffix = Path(name).suffix.lower()
        if suffix not in VIDEO_SUFFIXES:
            raise HTTPException(422, f"The name must end like that of a video: {', '.join(sorted(VIDEO_SUFFIXES))}.")
        # The file's name is made of letters and digits of the given one, and a random part.
        target = folder / f"{slug(Path(name).stem)}-{secrets.token_hex(4)}{suffix}"
        try:
            video = await service.receive(request.stream(), target, name)
        except ClientDisconnect as error:
            raise HTTPException(400, "The upload was interrupted.") from error
        return schema.VideoItem(id=video.id, name=video.name, prepared=False)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the response of a request that failed."""
    return JSONResponse({"detail": detail}, status, headers)
