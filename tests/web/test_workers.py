"""Child processes that die, hang or are cancelled."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mesm_core.errors import DataError
from mesm_core.web.workers import CHILD, Cancel, StoppedError, TimeLimitError, Worker, WorkerError
from tests.video.made import constant, film, make_video
from tests.web.made import KnownCollection, served


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that takes seconds to cut."""
    return make_video(tmp_path_factory.mktemp("long") / "long.avi", constant(25, 1500), size=(320, 240), codec="mpeg4")


def clip_task(path: Path, target: Path, end: float = 60) -> dict[str, object]:
    return {"task": "clip", "path": str(path), "start": 0, "end": end, "target": str(target), "preview": False}


def running_clip(worker: Worker, folder: Path) -> None:
    """Wait until a clip is being written."""
    while worker.pid is None or not list(folder.iterdir()):
        time.sleep(0.01)


def test_a_worker_does_one_task_after_the_other(clip: Path, tmp_path: Path) -> None:
    worker = Worker()
    try:
        assert worker.run({"task": "header", "path": str(clip)})["width"] == 64
        first = worker.pid
        with pytest.raises(DataError, match="No video file"):
            worker.run({"task": "header", "path": str(tmp_path / "none.mp4")})
        with pytest.raises(WorkerError, match="KeyError"):
            worker.run({"task": "none"})
        assert worker.run({"task": "header", "path": str(clip)})["media_type"] == "video/mp4"
        assert worker.pid == first
    finally:
        worker.close()
    assert worker.pid is None
    with pytest.raises(StoppedError):
        worker.run({"task": "header", "path": str(clip)})


def test_a_worker_that_dies_is_replaced(long: Path, tmp_path: Path) -> None:
    worker, target = Worker(), tmp_path / "out.mp4"

    def kill() -> None:
        running_clip(worker, tmp_path)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(WorkerError, match="ended with -9"):
            worker.run(clip_task(long, target))
        killer.join()
        assert not target.exists()
        worker.run(clip_task(long, target, end=0.2))
        assert target.is_file()
    finally:
        worker.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_task_that_is_cancelled_or_takes_too_long_leaves_nothing(long: Path, tmp_path: Path) -> None:
    worker, cancel = Worker(), Cancel()
    canceller = threading.Thread(target=lambda: (running_clip(worker, tmp_path), cancel.cancel()))
    canceller.start()
    try:
        with pytest.raises(StoppedError):
            worker.run(clip_task(long, tmp_path / "out.mp4"), cancel=cancel)
        canceller.join()
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(TimeLimitError):
            worker.run(clip_task(long, tmp_path / "out.mp4"), seconds=0.01)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(StoppedError):
            worker.run(clip_task(long, tmp_path / "out.mp4"), cancel=cancel)
    finally:
        worker.close()


def test_a_decoder_that_dies_answers_500_and_the_server_lives(tmp_path: Path) -> None:
    reports: list[str] = []
    video, others = film(tmp_path / "a.mp4", 2), children()
    with served(KnownCollection(video), tmp_path, report=reports.append) as client:
        (listed,) = client.get("/api/videos").json()["videos"]
        client.get(f"/api/thumbnail/{listed['id']}?time=0")
        (decoder,) = children() - others
        os.kill(decoder, signal.SIGSTOP)  # so that it dies during the task
        threading.Timer(0.2, os.kill, [decoder, signal.SIGKILL]).start()
        found = client.get(f"/api/thumbnail/{listed['id']}?time=1")
        assert (found.status_code, str(tmp_path) in found.text) == (500, False)
        assert "ended with -9" in reports[0]
        assert client.get(f"/api/thumbnail/{listed['id']}?time=1").status_code == 200


def children() -> set[int]:
    """Return the numbers of the processes that decode for this one."""
    words = [word for task in Path("/proc/self/task").iterdir() for word in (task / "children").read_text().split()]
    return {int(word) for word in words if CHILD in Path(f"/proc/{word}/cmdline").read_text()}
