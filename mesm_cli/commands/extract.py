"""``mesm extract``: videos to feature files."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from mesm_cli import formats, options, render
from mesm_cli.commands.extract_options import (
    Backbones,
    BatchSize,
    ClipLen,
    Compare,
    Decoders,
    DryRun,
    DtypeOption,
    Interpolation,
    InterpolationOption,
    PrecisionOption,
    Processes,
    Ray,
    Resume,
    ShardOption,
    Sources,
    Weights,
    refuse_with_ray,
    weights_by_name,
)
from mesm_cli.commands.prepare_features import Dtype
from mesm_cli.commands.probe import seconds_of
from mesm_cli.entry import Interrupt

if TYPE_CHECKING:
    from mesm_core.extraction.compare import Comparison
    from mesm_core.extraction.estimate import Estimate
    from mesm_core.extraction.job import Extraction, Report
    from mesm_core.extraction.sources import VideoFile
    from mesm_core.extraction.work import Event

WORST = 5


def extract(
    sources: Sources,
    backbone: Backbones = None,
    clip_len: ClipLen = "2",
    weights: Weights = None,
    interpolation: InterpolationOption = Interpolation.BILINEAR,
    dtype: DtypeOption = Dtype.FLOAT16,
    device: options.Device = "auto",
    precision: PrecisionOption = None,
    batch_size: BatchSize = 16,
    decoders: Decoders = 2,
    processes: Processes = 1,
    shard: ShardOption = None,
    ray: Ray = None,
    dry_run: DryRun = False,
    compare: Compare = None,
    resume: Resume = False,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Extract features from videos for training and prediction: one HDF5 file for each backbone.

    Each video is decoded once for all backbones. A video that cannot be read is reported, and the others are processed.

    Examples:

      mesm extract videos/ data/mine --backbone clip-b32 --clip-len 2

      mesm extract data/mine --compare published/clip_image.hdf5
    """
    outdir = Path(sources[-1])
    if len(sources) == 1:
        if compare is None:
            raise typer.BadParameter("give at least one video, and the folder last", param_hint="SOURCE... OUTDIR")
        _show_comparison(_compare(outdir, compare, backbone or []), as_json=json_)
        return
    if not backbone:
        raise typer.BadParameter("give at least one, e.g. --backbone clip-b32", param_hint="--backbone")
    from mesm_core.extraction.job import Extraction, notes
    from mesm_core.extraction.settings import Settings
    from mesm_core.extraction.setup import Options
    from mesm_core.extraction.shards import parse_shard
    from mesm_core.extraction.sources import find_videos

    refuse_with_ray(ray, processes=processes, shard=shard, dry_run=dry_run)
    share = None if shard is None else parse_shard(shard, os.environ)
    job = Extraction(
        find_videos(sources[:-1], shard=share or (1, 1)),
        outdir,
        backbone,
        settings=Settings(seconds_of(clip_len), interpolation.value, dtype.value),
        weights=weights_by_name(weights or []),
        options=Options(
            device, None if precision is None else precision.value, batch_size, decoders, processes, share, ray
        ),
        resume=resume,
        overwrite=overwrite,
        dry=dry_run,
    )
    for note in notes(backbone):
        render.warn(note)
    if dry_run:
        _show_estimate(job, as_json=json_)
        return
    carry_out(job)
    found = None if compare is None else _compare(outdir, compare, backbone, shard=share)
    if json_:
        render.data(_as_json(job.report) | ({} if found is None else {"comparison": found.as_json()}))
    else:
        _show(job.report)
        if found is not None:
            _show_comparison(found, as_json=False)
    raise_for_bad(job)


class Job(Protocol):
    """An extraction: its videos, where finished features are until it ends, and the work, which yields events."""

    videos: list[VideoFile]

    @property
    def parts(self) -> Path | None: ...

    def run(self) -> Generator[Event]: ...


def carry_out(job: Job, *, then: str = "Continue with --resume.") -> None:
    """Extract features, with progress on stderr. If interrupted, print where finished features are, and ``then``."""
    try:
        with _ended_by_term(), render.training_progress() as live, closing(job.run()) as events:
            show = _Speed(len(job.videos), live.busy)
            for event in events:
                show(event)
    except (KeyboardInterrupt, Interrupt):
        if job.parts:
            render.note(f"Finished videos are kept in {job.parts}. {then}")
        raise


@contextmanager
def _ended_by_term() -> Iterator[None]:
    """Let TERM end the extraction like Ctrl-C."""

    def end(number: int, _: object) -> None:
        raise Interrupt(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Speed:
    """Shows the progress of an extraction: videos, frames per second, and the estimated time left."""

    def __init__(
        self, videos: int, show: Callable[[str, int, int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._videos, self._show, self._clock = videos, show, clock
        self._done = self._worked = self._frames = 0
        self._began = clock()

    def __call__(self, event: Event) -> None:
        """Count an event and update the progress."""
        self._frames += getattr(event, "count", 0)
        self._done += hasattr(event, "video")
        # Videos that were extracted before take no time, so they are left out of the estimate.
        self._worked += bool(getattr(event, "rows", None))
        passed = max(self._clock() - self._began, 1e-3)
        text = f"Extracting, {self._frames / passed:.0f} frames/s"
        if self._worked:
            left = passed / self._worked * (self._videos - self._done)
            text += f", about {formats.duration(left)} left"
        self._show(text, self._done, self._videos)


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "outputs": {name: str(path) for name, path in report.outputs.items()},
        "videos": report.videos,
        "already_there": report.already,
        "rows": report.rows,
        "frames": report.frames,
        "warnings": [{"video": str(video.path), "warning": warning} for video, warning in report.warnings],
        "bad": [{"video": str(video.path), "reason": reason} for video, reason in report.bad],
    }


def _show(report: Report) -> None:
    from mesm_core.errors import count

    for video, warning in report.warnings:
        render.warn(f"{video.path}: {warning}.")
    there = f" ({report.already} more existed already)" if report.already else ""
    render.say(f"{count(report.videos, 'video')} extracted{there}, {count(report.frames, 'frame')} decoded")
    for name, path in report.outputs.items():
        render.say(f"{path}: {name}, {count(report.rows.get(name, 0), 'new row')}")


def raise_for_bad(
    job: Extraction, *, hint: str = "The others are done. Repair these and add them with --resume."
) -> None:
    """Raise an error if videos have no features."""
    raise_bad(job.report.bad, len(job.videos), hint=hint)


def raise_bad(bad: Sequence[tuple[VideoFile, str]], videos: int, *, hint: str) -> None:
    """Raise an error if there are videos without features, given with their reasons."""
    from mesm_core.errors import DataError

    if bad:
        reasons = [reason if str(video.path) in reason else f"{video.path}: {reason}" for video, reason in bad]
        lines = "\n".join("  " + reason.replace("\n", "\n    ") for reason in reasons)  # a hint follows its reason
        raise DataError(f"{len(bad)} of {videos} videos have no features:\n{lines}", hint=hint)


def _show_estimate(job: Extraction, *, as_json: bool) -> None:
    from mesm_core.errors import DataError, count
    from mesm_core.extraction.estimate import estimate

    found: Estimate = estimate(
        job.videos, job.backbones, job.settings, batch_size=job.options.batch_size, processes=job.options.processes
    )
    if as_json:
        render.data(found.as_json())
    else:
        unknown = f" and {count(len(found.unknown), 'video')} without a duration" if found.unknown else ""
        lines = [("videos", f"{found.videos}, {found.hours:.2f} h{unknown}")]
        lines += [(n, f"{rows} rows, {found.bytes[n] / 1e9:.3g} GB") for n, rows in found.rows.items()]
        expected = (
            "unknown, no video can be read" if found.seconds is None else f"about {formats.duration(found.seconds)}"
        )
        lines.append(("time", f"{expected} on {', '.join(dict.fromkeys(job.devices))}"))
        render.pairs(lines)
    if found.bad:
        reasons = "\n".join(f"  {reason}" for _, reason in found.bad)
        raise DataError(f"{len(found.bad)} of {found.videos} videos cannot be read:\n{reasons}")


def _compare(ours: Path, published: Path, backbones: list[str], shard: tuple[int, int] | None = None) -> Comparison:
    from mesm_core.backbones.registry import find_backbone
    from mesm_core.extraction.compare import compare, features_to_compare

    for name in backbones:
        find_backbone(name)
    return compare(features_to_compare(ours, published, backbones, shard=shard), published)


def _show_comparison(found: Comparison, *, as_json: bool) -> None:
    from mesm_core.errors import count, listing

    if as_json:
        render.data(found.as_json())
        return
    rows = sum(len(video.cosines) for video in found.videos)
    render.say(f"{found.ours} against {found.theirs}: {count(len(found.videos), 'video')}, {count(rows, 'row')}")
    render.say(f"cosine: mean {found.mean:.4f}, lowest {found.lowest:.4f}")
    render.table(
        ["least similar", "mean", "lowest", "row", "our rows", "their rows"],
        [
            (v.name, f"{v.mean:.4f}", f"{v.cosines.min():.4f}", v.worst_row, v.ours, v.theirs)
            for v in found.videos[:WORST]
        ],
    )
    worst = [f"{name} row {row} ({cosine:.4f})" for cosine, name, row in found.worst_rows(WORST)]
    render.say(f"worst rows: {', '.join(worst)}")
    for difference, names in (
        ("have different numbers of rows in the two files", [video.name for video in found.other_lengths]),
        (f"are only in {found.ours}", found.only_ours),
        (f"are only in {found.theirs}", found.only_theirs),
    ):
        if names:
            render.say(f"{len(names)} videos {difference}: {listing(names)}")
