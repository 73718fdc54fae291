"""Converts folders and archives of .npy and .npz files to an HDF5 file with one dataset per video, and back."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mesm_core import hdf5
from mesm_core.data.archives import Archive, BrokenArchiveError, Member, entries
from mesm_core.data.attributes import describe
from mesm_core.data.npy_files import Source, VideoNames, by_name, name_problem, read_array, same_name
from mesm_core.data.rawcopy import RawArray, allocate, copy_numbers, raw_array
from mesm_core.data.workfile import WorkFile, about_size
from mesm_core.errors import FeatureError, listing
from mesm_core.files import library_output, together
from mesm_core.inputs import file_size, open_hdf5, printable
from mesm_core.places import need_room, refuse_existing, refuse_inputs
from mesm_core.unfailing import UnfailingFile

READERS = min(max(os.cpu_count() or 1, 2), 4)
AHEAD = 8 * READERS
HELD_BYTES = 256 * 2**20
"""Limit in bytes of files in memory; reading pauses above it."""
REPORT_BYTES = 2**22
FLUSH_BYTES = 2**30
COMPLETE = "frames"
DEFAULT_SKEW = 2


@dataclass(frozen=True)
class Options:
    """Options of a conversion.

    ``key``: array of an .npz file; ``dtype``: type to convert to; ``fps``: frame rate, stored with the resulting
    duration; ``name_regex``: finds the video name in a file name; ``name_format``: template with ``{}`` for that name;
    ``max_skew``: largest difference in frames between sources; ``compression``: gzip or lzf.
    """

    key: str | None = None
    dtype: str | None = None
    fps: float | None = None
    name_regex: str | None = None
    name_format: str | None = None
    max_skew: int = DEFAULT_SKEW
    compression: str | None = None


@dataclass
class Conversion:
    """Result of a conversion: what was written, what existed before, and the rejected videos with the reasons."""

    out: Path
    videos: int = 0
    skipped: int = 0
    frames: int = 0
    bytes: int = 0
    width: int | None = None
    bad: list[tuple[str, str]] = field(default_factory=list)


Progress = Callable[[int], None]
Files = tuple[Path, ...] | tuple[Member]


def npy_to_hdf5(
    parts: Sequence[Sequence[Source]],
    out: Path,
    *,
    options: Options = Options(),
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write every video as a dataset; several threads read, one writes.

    A video's files, one from each part, are cut to the shortest and concatenated on the feature axis. Invalid videos
    are skipped and reported; if all are invalid, nothing is written. Until the end, the data is in ``OUT.part``; with
    ``resume``, videos written there before a kill are not written again.

    Args:
        parts: .npy or .npz files of each source, or archives of them, which are read once, sequentially.
        progress: called with the bytes of each video done.

    Raises:
        FeatureError: no video is usable; OutputError: ``out`` or ``OUT.part`` exists, and neither ``overwrite`` nor
            ``resume`` is on.
    """
    sources = [source for part in parts for source in part]
    archives = [source for source in sources if isinstance(source, Archive)]
    if archives and len(parts) > 1:
        raise FeatureError(
            f"{archives[0]} is an archive, and the files of several sources cannot be joined while they are streamed.",
            hint="Leave out --concat and convert each source to a separate file: a dataset can have several.",
        )
    names = VideoNames(options.name_regex, options.name_format)
    files = [[source for source in part if isinstance(source, Path)] for part in parts]
    videos = _match([by_name(part, name_regex=options.name_regex, name_format=options.name_format) for part in files])
    needs = None if options.compression or archives else about_size(videos.values(), options.dtype)
    inputs = [source.path if isinstance(source, Archive) else source for source in sources]
    work = WorkFile(out, inputs, needs, overwrite=overwrite, resume=resume)
    report = Conversion(out)
    with work.written() as target, _open_for_append(target) as file:
        report.width = next((node.shape[1] for _, node in hdf5.datasets(file) if node.ndim == 2), None)
        usable = _with_usable_names(videos, report)
        new = not len(file)  # asking for each dataset takes as long as writing an attribute
        remaining = [(name, paths) for name, paths in usable if new or not _complete(file, name)]
        report.skipped = len(usable) - len(remaining)
        streamed = _from_archives(archives, file, names, dict(videos), report)
        _write_all(file, target, chain(remaining, streamed), report, options, progress)
    if not report.videos and not report.skipped:
        work.undo()
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in report.bad[:10])
        which = "the videos" if archives else f"the {len(videos)} videos"
        raise FeatureError(f"None of {which} could be used:\n{reasons}")
    work.take_place()
    return report


def hdf5_to_npy(source: Path, folder: Path, *, overwrite: bool = False, progress: Progress | None = None) -> int:
    """Write each dataset of an HDF5 file as ``FOLDER/NAME.npy`` and return how many there were.

    A dataset in a group is written to a folder with the group's name.

    Raises:
        FeatureError: the file is missing, damaged or empty, or a dataset is not numeric or has a name that is invalid
            for a file; OutputError: a .npy file exists or cannot be written. Nothing is written then.
    """
    with open_hdf5(source) as file:
        found = dict(hdf5.datasets(file))
        if not found:
            raise FeatureError(f"{source} has no features.")
        targets = {name: _target(folder, name, source) for name in found}
        for name, node in found.items():
            hdf5.check_numbers(node, where=f"'{name}' in {source}")
        refuse_inputs(targets.values(), [source])
        for target in targets.values():
            refuse_existing(target, overwrite=overwrite)
        need_room(next(iter(targets.values())), sum(int(node.nbytes) for node in found.values()))
        with together():
            for name, node in found.items():
                array = hdf5.read_numbers(node, where=f"'{name}' in {source}")
                with library_output(targets[name]) as file_out:
                    np.save(file_out, array, allow_pickle=False)
                if progress is not None:
                    progress(array.nbytes)
        return len(found)


def _target(folder: Path, name: str, source: Path) -> Path:
    """Return the path of a dataset's .npy file; groups become folders."""
    if any(part in {"", ".", ".."} for part in name.split("/")) or "\\" in name or "\0" in name:
        raise FeatureError(f"{source} has a dataset called '{name}', which cannot be the name of a file.")
    return folder / f"{name}.npy"


def _with_usable_names(
    videos: Mapping[str, tuple[Path, ...]], report: Conversion
) -> list[tuple[str, tuple[Path, ...]]]:
    """Return the videos whose names are valid for datasets; report the others as bad."""
    usable = []
    for name, paths in videos.items():
        problem = name_problem(name)
        if problem is None:
            usable.append((name, paths))
        else:
            report.bad.append((printable(paths[0]), problem))
    return usable


def _from_archives(
    archives: Sequence[Archive],
    file: h5py.File,
    names: VideoNames,
    taken: dict[str, Sequence[object]],
    report: Conversion,
) -> Iterator[tuple[str, tuple[Member]]]:
    """Yield the videos of archives in archive order; report invalid ones, and skip existing ones.

    Args:
        taken: the origin of each name used so far.

    Raises:
        FeatureError: two files give the same name, or an archive's folder is empty.
    """
    for archive in archives:
        try:
            for entry in entries(archive):
                name = names.of(entry.name)
                if name in taken:
                    raise same_name(taken[name][0], entry.where, name)
                taken[name] = [entry.where]
                try:
                    if problem := entry.problem or name_problem(name):
                        raise FeatureError(problem)
                    if _complete(file, name):
                        report.skipped += 1
                        continue
                    member = entry.load()
                except FeatureError as error:
                    report.bad.append((entry.where, error.message))
                    if isinstance(error, BrokenArchiveError):
                        break
                    continue
                yield name, (member,)
        except BrokenArchiveError as error:
            report.bad.append((printable(archive), error.message))


def _match(parts: Sequence[Mapping[str, Path]]) -> dict[str, tuple[Path, ...]]:
    """Return the files of every video, one from each part.

    Raises:
        FeatureError: a part lacks videos that another part has.
    """
    every = dict.fromkeys(name for part in parts for name in part)
    for number, part in enumerate(parts, start=1):
        missing = [name for name in every if name not in part]
        if missing:
            raise FeatureError(
                f"Source {number} lacks {len(missing)} of {len(every)} videos: {listing(missing)}.",
                hint="With --concat every source has the same videos.",
            )
    return {name: tuple(part[name] for part in parts) for name in every}


def _open_for_append(target: UnfailingFile) -> h5py.File:
    """Open the work file so that, after a kill, it contains everything up to the last flush."""
    try:
        file = h5py.File(target, "r+" if target.size else "w")
    except OSError:
        # A kill during a flush leaves an unreadable file: start over.
        target.truncate(0)
        file = h5py.File(target, "w")
    settings = file.id.get_mdc_config()
    settings.evictions_enabled = False
    settings.incr_mode = settings.flash_incr_mode = settings.decr_mode = 0
    file.id.set_mdc_config(settings)
    return file


def _complete(file: h5py.File, name: str) -> bool:
    if name.encode() not in file.id:
        return False
    node = file[name]
    if isinstance(node, h5py.Dataset) and node.attrs.get(COMPLETE) == node.shape[0]:
        return True
    del file[name]
    return False


@dataclass
class _Job:
    """A video in progress: ``outcome`` returns its numbers, or waits until those of ``raw`` are copied to ``node``.

    ``held``: the size of the files that are read into memory; ``consumed``: for a video from an archive, the bytes of
    the archive that were read.
    """

    name: str
    paths: Files
    outcome: Callable[[], np.ndarray | None]
    raw: RawArray | None = None
    node: h5py.h5d.DatasetID | None = None
    held: int = 0
    consumed: int | None = None


def _write_all(
    file: h5py.File,
    target: UnfailingFile,
    videos: Iterable[tuple[str, Files]],
    report: Conversion,
    options: Options,
    progress: Progress | None,
) -> None:
    """Write the videos; worker threads read and copy, only this thread calls HDF5."""
    remaining, unflushed, held, unreported = iter(videos), 0, 0, 0
    jobs: deque[_Job] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        while True:
            while len(jobs) < AHEAD and held < HELD_BYTES and (video := next(remaining, None)) is not None:
                jobs.append(_start(pool, file, target.fileno(), video, report, options))
                held += jobs[-1].held
            if not jobs:
                break
            job = jobs.popleft()
            size = _finish(file, job, report, options)
            held -= job.held
            target.check()
            unflushed += size
            if unflushed >= FLUSH_BYTES:
                file.flush()
                unflushed = 0
            unreported += size if job.consumed is None else job.consumed
            if progress is not None and (unreported >= REPORT_BYTES or not jobs):
                progress(unreported)
                unreported = 0


def _start(
    pool: ThreadPoolExecutor,
    file: h5py.File,
    target: int,
    video: tuple[str, Files],
    report: Conversion,
    options: Options,
) -> _Job:
    name, paths = video
    first, plain = paths[0], len(paths) == 1 and options.compression is None
    if isinstance(first, Member):
        read = pool.submit(_read, paths, options).result
        return _Job(name, paths, read, held=len(first.content), consumed=first.consumed)
    raw = raw_array(first) if plain else None
    fits = raw is not None and report.width in (None, raw.shape[1])
    if raw is None or not fits or (options.dtype is not None and raw.dtype != options.dtype):
        return _Job(name, paths, pool.submit(_read, paths, options).result, held=_size(paths))
    node, place = allocate(file, name, raw)
    if raw.content is not None:  # handing it to another thread would take longer than copying it
        return _Job(name, paths, _done(partial(copy_numbers, raw, target, place)), raw, node)
    return _Job(name, paths, pool.submit(copy_numbers, raw, target, place).result, raw, node)


def _done(work: Callable[[], None]) -> Callable[[], None]:
    """Call ``work`` now; return a function that raises its FeatureError, if any."""
    try:
        work()
    except FeatureError as error:
        return partial(_raise, error)
    return lambda: None


def _raise(error: FeatureError) -> None:
    raise error


def _finish(file: h5py.File, job: _Job, report: Conversion, options: Options) -> int:
    """Finish a job's dataset, or report why it failed; return its size in bytes."""
    where = printable(job.paths[0]) if len(job.paths) == 1 else job.name
    try:
        array = job.outcome()
        written = array if job.raw is None else job.raw
        assert written is not None
        (frames, width), size = written.shape, int(written.nbytes)
        if report.width not in (None, width):
            raise FeatureError(f"it is {width} wide, the others are {report.width}")
    except FeatureError as error:
        if job.raw is not None:
            del file[job.name]
        report.bad.append((where, error.message))
        return 0
    node = job.node
    if array is not None:
        layout: dict[str, Any] = {}
        if options.compression:
            layout = {"compression": options.compression, "chunks": array.shape}  # one chunk: read in one go
        node = file.create_dataset(job.name, data=array, **layout).id
    described: dict[str, str | int | float] = {"source": printable(os.pathsep.join(map(str, job.paths)))}
    if options.fps:
        described |= {"fps": float(options.fps), "duration": frames / options.fps}
    describe(node, described | {COMPLETE: frames})
    report.width = width
    report.videos += 1
    report.frames += frames
    report.bytes += size
    return size


def _size(paths: Files) -> int:
    return sum(file_size(path) for path in paths if isinstance(path, Path))


def _read(paths: Files, options: Options) -> np.ndarray:
    arrays = [read_array(path, key=options.key, dtype=options.dtype) for path in paths]
    if len(arrays) == 1:
        return arrays[0]
    lengths = [len(array) for array in arrays]
    if max(lengths) - min(lengths) > options.max_skew:
        frames = " and ".join(map(str, lengths))
        raise FeatureError(f"its sources have {frames} frames, which differ by more than --max-skew")
    return np.concatenate([array[: min(lengths)] for array in arrays], axis=1)
