"""Long work that clients start, follow and cancel."""

from __future__ import annotations

import secrets
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

from mesm_core.errors import MesmError
from mesm_core.web.collection import Collection, Progress
from mesm_core.web.workers import Cancel, StoppedError

MOST_WAITING = 20
MOST_KEPT = 200
"""Jobs that are remembered after their end."""


class State(StrEnum):
    """States of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the job does not change any more."""
        return self not in (State.WAITING, State.RUNNING)


class TooManyJobsError(Exception):
    """Too many jobs wait already."""


@dataclass
class Job:
    """The preparation of videos.

    ``share``: how much is done, in [0, 1]; ``done``: number of videos that are done; ``failed``: the reason for each
    video that cannot be read; ``problem``: why the job failed.
    """

    id: str
    videos: tuple[str, ...]
    state: State = State.WAITING
    share: float = 0.0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    cancel: Cancel = field(default_factory=Cancel)


class Jobs:
    """Prepares videos of a collection in the background, one job at a time.

    Args:
        report: called with the description of a fault.
    """

    def __init__(self, collection: Collection, report: Callable[[str], None]) -> None:
        self._collection = collection
        self._report = report
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mesm-job")

    def get(self, number: str) -> Job | None:
        """Return a job by its id."""
        return self._jobs.get(number)

    def open(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for job in list(self._jobs.values()) if not job.state.ended]

    def start(self, videos: Sequence[str]) -> Job:
        """Return a job that prepares these videos: one that has not ended and prepares them all, or a new one.

        Raises:
            TooManyJobsError: too many jobs wait.
        """
        with self._lock:
            active = self.open()
            for job in active:
                if not job.cancel.cancelled and set(videos) <= set(job.videos):
                    return job
            if len(active) >= MOST_WAITING:
                raise TooManyJobsError
            job = Job(secrets.token_urlsafe(9), tuple(videos))
            self._jobs[job.id] = job
            ended = [old for old in self._jobs.values() if old.state.ended]
            for old in ended[: max(len(ended) - MOST_KEPT, 0)]:
                del self._jobs[old.id]
            self._pool.submit(self._run, job)
            return job

    def cancel(self, job: Job) -> None:
        """Cancel a job. Videos that are done stay prepared."""
        job.cancel.cancel()
        if job.state is State.WAITING:
            job.state = State.CANCELLED

    def close(self) -> None:
        """Cancel all jobs, and wait for their end."""
        for job in self.open():
            self.cancel(job)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Job) -> None:
        if job.cancel.cancelled:
            job.state = State.CANCELLED
            return
        job.state = State.RUNNING

        def follow(progress: Progress) -> None:
            job.share, job.done = progress.share, progress.done

        try:
            job.failed = dict(self._collection.prepare(job.videos, progress=follow, cancel=job.cancel))
            job.share, job.state = 1.0, State.DONE
        except StoppedError:
            job.state = State.CANCELLED
        except MesmError as error:
            job.problem, job.state = str(error), State.FAILED
        except Exception:
            self._report(traceback.format_exc())
            job.problem, job.state = "The server failed; its log has the reason.", State.FAILED
