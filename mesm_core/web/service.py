"""All that the routes of the API share: the collection, its media, jobs, and the threads that work for requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from fastapi import HTTPException

from mesm_core.files import replacing
from mesm_core.inputs import printable
from mesm_core.places import need_room
from mesm_core.web.collection import Collection, WebVideo
from mesm_core.web.desk import BusyError, Desk
from mesm_core.web.jobs import Job, Jobs
from mesm_core.web.media import Media
from mesm_core.web.settings import MOST_VIDEOS, WebSettings

UPLOADS_AT_ONCE = 2
SPARE_BYTES = 500_000_000
"""Space that uploads leave free on the disk."""


class Service:
    """The parts of a server.

    ``queries``, ``pictures``, ``clips``, ``quick``: threads for queries, for thumbnails and headers, for clips, and for
    what never takes long.
    """

    def __init__(self, collection: Collection, settings: WebSettings) -> None:
        self.collection = collection
        self.settings = settings
        self.media = Media(
            settings.clips, limit=settings.clips_bytes, workers=settings.running, seconds=settings.work_seconds
        )
        self.jobs = Jobs(collection, settings.report)
        self.queries = Desk(settings.running, settings.waiting)
        self.pictures = Desk(settings.running, settings.waiting)
        self.clips = Desk(settings.running, settings.waiting)
        self.quick = Desk(settings.running, 10 * settings.waiting)
        self._uploads = 0

    def video(self, key: str) -> WebVideo:
        """Return a video of the collection by its id.

        Raises:
            HTTPException: 404, there is none.
        """
        found = self.collection.videos().get(key)
        if found is None:
            raise HTTPException(404, "There is no such video.")
        return found

    def job(self, key: str) -> Job:
        """Return a job by its id.

        Raises:
            HTTPException: 404, there is none.
        """
        found = self.jobs.get(key)
        if found is None:
            raise HTTPException(404, "There is no such job.")
        return found

    async def receive(self, body: AsyncIterator[bytes], target: Path, name: str) -> WebVideo:
        """Write an upload to a file, check that it is a video, and add it to the collection.

        Raises:
            DataError: it is not a video; OutputError: it cannot be written; BusyError: too many uploads are under way.
        """
        if self._uploads >= UPLOADS_AT_ONCE or len(self.collection.videos()) >= MOST_VIDEOS:
            raise BusyError
        self._uploads += 1
        try:
            with replacing(target, overwrite=False) as temporary:
                need_room(target, SPARE_BYTES)
                with temporary.open("wb") as file:
                    async for block in body:
                        await self.quick.do(partial(file.write, block))
                draft = WebVideo("", printable(name), temporary)
                await self.pictures.do(lambda: self.media.header(draft))
            return await self.quick.do(lambda: self.collection.add(target, printable(name)))
        finally:
            self._uploads -= 1

    def close(self) -> None:
        """Finish what is under way, and end all threads and processes."""
        self.jobs.close()
        self.collection.close()
        self.media.close()
        for desk in (self.queries, self.pictures, self.clips, self.quick):
            desk.close()
