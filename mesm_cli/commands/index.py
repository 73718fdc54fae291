"""``mesm index``: make, change and check an index of videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mesm_cli import options, render
from mesm_cli.commands.extract import carry_out, raise_bad
from mesm_cli.commands.extract_options import (
    BatchSize,
    Decoders,
    Precision,
    PrecisionOption,
    Processes,
    Ray,
    Weights,
    refuse_with_ray,
    weights_by_name,
)
from mesm_cli.commands.index_options import (
    Backbones,
    ClipLen,
    DtypeOption,
    Engine,
    Folder,
    InterpolationOption,
    Missing,
    MovedEngine,
    Overlap,
    Segment,
    Sources,
    Uri,
    Which,
)
from mesm_cli.commands.probe import seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mesm_core.search.building import IndexBuild, Report
    from mesm_core.search.checking import Findings, Stats
    from mesm_core.search.choices import Choices
    from mesm_core.search.manifest import IndexedVideo

SHOWN_COPIES = 10

app = typer.Typer(help="Make, change and check an index of videos, for search.", no_args_is_help=True)


@app.command()
def build(
    index: Folder,
    sources: Sources,
    backbone: Backbones = None,
    clip_len: ClipLen = None,
    interpolation: InterpolationOption = None,
    dtype: DtypeOption = None,
    segment: Segment = None,
    overlap: Overlap = None,
    engine: Engine = None,
    uri: Uri = None,
    weights: Weights = None,
    device: options.Device = "auto",
    precision: PrecisionOption = None,
    batch_size: BatchSize = 16,
    decoders: Decoders = 2,
    processes: Processes = 1,
    ray: Ray = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make an index of videos, or continue one that was interrupted.

    Features are extracted and kept in the index. Features in files that are given are used where they lie. The index
    has a vector for each segment of a video: 8 seconds long, half overlapping.

    Examples:

      mesm index build my.index videos/

      mesm index build my.index data/mine/clip_image.hdf5 --segment 4
    """
    from mesm_core.search.choices import Choices

    chosen = Choices(
        backbones=tuple(backbone) if backbone else None,
        clip_len=None if clip_len is None else seconds_of(clip_len),
        interpolation=None if interpolation is None else interpolation.value,
        dtype=None if dtype is None else dtype.value,
        seconds=segment,
        overlap=overlap,
        engine=engine,
        uri=uri,
    )
    job = _job(index, sources, chosen, weights, device, precision, batch_size, decoders, processes, ray)
    _carry_out(job, as_json=json_)


@app.command()
def add(
    index: Folder,
    sources: Sources,
    weights: Weights = None,
    device: options.Device = "auto",
    precision: PrecisionOption = None,
    batch_size: BatchSize = 16,
    decoders: Decoders = 2,
    processes: Processes = 1,
    ray: Ray = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Add videos to an index, with its settings. Videos that changed are replaced, and unchanged ones are skipped.

    Examples:

      mesm index add my.index videos/
    """
    job = _job(index, sources, None, weights, device, precision, batch_size, decoders, processes, ray)
    _carry_out(job, as_json=json_)


@app.command()
def remove(
    index: Folder,
    videos: Which = None,
    missing: Missing = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Remove videos from an index. Their files are kept.

    Examples:

      mesm index remove my.index holiday 'videos/2019/*'

      mesm index remove my.index --missing
    """
    from mesm_core.errors import count
    from mesm_core.search.checking import listed, source_states
    from mesm_core.search.selection import select_videos
    from mesm_core.search.writer import changing

    if not videos and not missing:
        raise typer.BadParameter("give a video, or --missing", param_hint="VIDEO...")
    with changing(index) as writer:
        chosen = select_videos(writer.videos, videos or [])
        if missing:
            gone, _ = source_states(list(writer.videos.values()))
            chosen = list({video.id: video for video in (*chosen, *gone)}.values())
        writer.remove({video.id for video in chosen})
        writer.commit()
        left = len(writer.videos)
    if json_:
        render.data({"removed": listed(chosen), "videos": left})
        return
    for video in chosen:
        render.say(f"removed {video.path if video.is_video else video.name}")
    render.say(f"{index}: {count(left, 'video')} left")


@app.command()
def stats(index: Folder, json_: options.Json = False, debug: options.Debug = False) -> None:
    """Show the size and settings of an index, and the videos that were deleted or changed since they were added."""
    from mesm_core.search.checking import statistics
    from mesm_core.search.index import Index

    found = statistics(Index.open(index))
    if json_:
        render.data(found.as_json())
    else:
        _show_stats(found)


@app.command()
def verify(index: Folder, json_: options.Json = False, debug: options.Debug = False) -> None:
    """Read all data of an index and report damage, and videos that were deleted or changed since they were added."""
    from mesm_core.errors import DataError, count
    from mesm_core.search.checking import Findings
    from mesm_core.search.checking import verify as verified
    from mesm_core.search.index import Index

    opened = Index.open(index)
    with render.progress("Reading", len(opened.videos)) as advance:
        for each in verified(opened):
            if isinstance(each, Findings):
                found = each
            else:
                advance(1, each)
    if json_:
        render.data(found.as_json())
    else:
        _show_findings(found, opened.path, len(opened.videos))
    if found.problems:
        raise DataError(
            f"{index} has {count(len(found.problems), 'problem')}.",
            hint="Remove the videos concerned with `mesm index remove`, and add them again.",
        )


@app.command()
def move(
    index: Folder, engine: MovedEngine, uri: Uri = None, json_: options.Json = False, debug: options.Debug = False
) -> None:
    """Move the vectors of an index to another engine, after comparing the copy.

    Examples:

      mesm index move my.index milvus --uri http://localhost:19530
    """
    from mesm_core.errors import count
    from mesm_core.search.index import Index
    from mesm_core.search.manifest import read_manifest
    from mesm_core.search.moving import move as moved

    before = read_manifest(index)
    with render.progress("Moving", 2 * len(before.videos)) as advance:
        last = 0
        for done in moved(index, engine, uri):
            advance(done - last, "")
            last = done
    segments = sum(video.segments for video in Index.open(index).videos.values())
    if json_:
        render.data({"from": before.engine, "to": engine, "videos": len(before.videos), "segments": segments})
    else:
        render.say(f"{index}: {count(segments, 'segment')} moved from {before.engine} to {engine}")


def _job(
    index: Path,
    sources: Sequence[str],
    chosen: Choices | None,
    weights: Sequence[str] | None,
    device: str,
    precision: Precision | None,
    batch_size: int,
    decoders: int,
    processes: int,
    ray: str | None,
) -> IndexBuild:
    """Return the work of ``build``, or of ``add`` if nothing can be chosen."""
    from mesm_core.extraction.setup import Options
    from mesm_core.search.building import NOTHING, IndexBuild

    refuse_with_ray(ray, processes=processes)
    return IndexBuild(
        index,
        sources,
        new=chosen is not None,
        choices=chosen or NOTHING,
        weights=weights_by_name(weights or []),
        options=Options(
            device, None if precision is None else precision.value, batch_size, decoders, processes, ray=ray
        ),
    )


def _carry_out(job: IndexBuild, *, as_json: bool) -> None:
    from mesm_core.errors import count
    from mesm_core.search.manifest import read_manifest

    carry_out(job, then="The same command continues.")
    report = job.report
    for video, warning in report.warnings:
        render.warn(f"{video.path}: {warning}.")
    videos = read_manifest(job.path).videos
    segments = sum(video.segments for video in videos.values())
    if as_json:
        render.data(_as_json(report) | {"index": str(job.path), "videos": len(videos), "segments": segments})
    else:
        parts = [
            (report.added, "added"),
            (report.replaced, "replaced"),
            (report.moved, "moved"),
            (report.already, "already there"),
            (len(report.copies), "a copy of another" if len(report.copies) == 1 else "copies of others"),
        ]
        render.say(", ".join(f"{number} {what}" for number, what in parts if number or what == "added"))
        render.say(f"{job.path}: {count(len(videos), 'video')}, {count(segments, 'segment')}")
        for copy, other in report.copies[:SHOWN_COPIES]:
            render.note(f"{copy} has the content of {other}.")
        if len(report.copies) > SHOWN_COPIES:
            render.note(f"… and {len(report.copies) - SHOWN_COPIES} more; --json lists all.")
    others = "The others are in the index. " if len(report.bad) < len(job.videos) else ""
    raise_bad(report.bad, len(job.videos), hint=f"{others}Repair these and add them.")


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "added": report.added,
        "replaced": report.replaced,
        "moved": report.moved,
        "already_there": report.already,
        "copies": [{"copy": copy, "of": other} for copy, other in report.copies],
        "frames": report.frames,
        "warnings": [{"video": str(video.path), "warning": warning} for video, warning in report.warnings],
        "bad": [{"video": str(video.path), "reason": reason} for video, reason in report.bad],
    }


def _show_stats(found: Stats) -> None:
    from mesm_core.places import size_text

    manifest = found.index.manifest
    where = manifest.state.get("uri")
    size = size_text(found.vector_bytes) if found.vector_bytes or not found.segments else "of unknown size"
    render.pairs(
        [
            ("videos", f"{len(manifest.videos)}, {found.hours:.2f} h"),
            ("segments", f"{found.segments}, of {manifest.seconds:g} s, overlap {manifest.overlap:g}"),
            ("engine", f"{manifest.engine}{f' at {where}' if where else ''}, vectors {size}"),
            ("features", f"{size_text(found.feature_bytes)} in the index, a row every {manifest.clip_len} s"),
            *(("backbone", str(network)) for network in manifest.networks),
            ("generation", str(manifest.generation)),
        ]
    )
    render.findings(list(_marked(found.missing, found.changed)))


def _show_findings(found: Findings, path: Path, videos: int) -> None:
    from mesm_core.errors import count

    rows = [("damaged", str(path), problem) for problem in found.problems]
    rows += _marked(found.missing, found.changed)
    if found.unlisted:
        rows.append(
            ("warning", str(path), f"the engine has segments of {count(found.unlisted, 'video')} not in the index")
        )
    if found.unused:
        kept = count(found.unused, "stored feature")
        rows.append(
            ("warning", str(path), f"{kept} of videos that are not in the index; a build that ended early left them")
        )
    if not found.problems:
        rows.insert(0, ("ok", str(path), f"{count(videos, 'video')}, all data as written"))
    render.findings(rows)


def _marked(missing: Sequence[IndexedVideo], changed: Sequence[IndexedVideo]) -> Iterator[tuple[str, str, str]]:
    for video in missing:
        yield "missing", video.name, f"{video.path} was deleted or moved; `mesm index remove --missing` forgets it"
    for video in changed:
        yield "warning", video.name, f"{video.path} changed since it was added; `mesm index add` replaces it"
