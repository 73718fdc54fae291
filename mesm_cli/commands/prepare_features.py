"""``mesm prepare npy2hdf5`` and ``hdf52npy``: features from one form to the other."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesm_cli import options, render

if TYPE_CHECKING:
    from mesm_core.data.convert import Conversion


class Dtype(StrEnum):
    """Numbers that features are kept in."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Compression(StrEnum):
    """Filters of HDF5 that every reader has, or h5py brings."""

    GZIP = "gzip"
    LZF = "lzf"


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE... OUT",
        help="Folders, files, quoted patterns, .txt lists, or archives (.tar, .tar.gz, .zip; ARCHIVE::FOLDER takes one "
        "folder of it); last, the HDF5 file.",
    ),
]
Concat = Annotated[
    bool, typer.Option("--concat", help="Join the sources' features of each video side by side, in this order.")
]
MaxSkew = Annotated[
    int,
    typer.Option(
        "--max-skew",
        min=0,
        help="With --concat: a video whose sources differ by "
        "more frames is left out; where they differ by fewer, the longer ones are cut at the end.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Array to take from .npz. Default: features, or the only one.", show_default=False),
]
NameRegex = Annotated[
    str | None,
    typer.Option("--name-regex", help="Name videos by what it (its first group) finds in files.", show_default=False),
]
NameFormat = Annotated[
    str | None,
    typer.Option(
        "--name-format", help="Name videos so, with {} for what names them otherwise: '{}.avi'.", show_default=False
    ),
]
DtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", help="Convert to this dtype. Default: as stored.", show_default=False)
]
Fps = Annotated[
    float | None,
    typer.Option("--fps", min=1e-6, help="Feature frames a second; tells predict the duration.", show_default=False),
]
CompressionOption = Annotated[
    Compression | None, typer.Option("--compression", help="Compress each video.", show_default=False)
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an interrupted conversion stopped, or add what is new.")
]


def npy2hdf5(
    sources: Sources,
    concat: Concat = False,
    max_skew: MaxSkew = 2,
    key: Key = None,
    name_regex: NameRegex = None,
    name_format: NameFormat = None,
    dtype: DtypeOption = None,
    fps: Fps = None,
    compression: CompressionOption = None,
    resume: Resume = False,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Join .npy or .npz features, one file a video, into one HDF5 file.

    Archives are read as they come; nothing is unpacked to disk.

    Examples: mesm prepare npy2hdf5 features/ data/TACoS/c3d.hdf5

    mesm prepare npy2hdf5 --concat clip/ slowfast/ data/mine.hdf5

    mesm prepare npy2hdf5 tacos.tar.gz::clip data/TACoS/clip_image.hdf5 --name-format '{}.avi'
    """
    from mesm_core.data import convert, npy_files
    from mesm_core.inputs import file_size

    if len(sources) < 2:
        raise typer.BadParameter("give at least one source, and the HDF5 file last", param_hint="SOURCE... OUT")
    out = Path(sources[-1])
    found = [npy_files.find_sources(source) for source in sources[:-1]]
    parts = found if concat else [[file for files in found for file in files]]
    files = [source if isinstance(source, Path) else source.path for part in parts for source in part]
    total = sum(map(file_size, files))
    chosen = convert.Options(
        key=key,
        dtype=None if dtype is None else str(dtype),
        fps=fps,
        name_regex=name_regex,
        name_format=name_format,
        max_skew=max_skew,
        compression=None if compression is None else str(compression),
    )
    with render.bytes_progress("Converting", total) as advance:
        report = convert.npy_to_hdf5(parts, out, options=chosen, overwrite=overwrite, resume=resume, progress=advance)
    _report(report, as_json=json_)


def hdf52npy(
    source: Annotated[Path, typer.Argument(help="HDF5 file of features.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write one .npy a video to.")],
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Take an HDF5 file apart again, into one .npy a video."""
    from mesm_core.data import convert
    from mesm_core.errors import count

    total = source.stat().st_size if source.is_file() else 0
    with render.bytes_progress("Writing", total) as advance:
        videos = convert.hdf5_to_npy(source, folder, overwrite=overwrite, progress=advance)
    if json_:
        render.data({"out": str(folder), "videos": videos})
    else:
        render.say(f"{folder}: {count(videos, 'video')}")


def merge(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SHARD... OUT", help="Feature files or quoted patterns; last, the HDF5 file to write."),
    ],
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Join feature files that have videos each, such as the shards of `mesm extract`, into one.

    All must have been made with the same settings. A video that several files have must be the same in all of them.

    Example: mesm prepare merge 'data/mine/clip_image.*-of-8.hdf5' data/mine/clip_image.hdf5
    """
    from mesm_core.data.merging import find_shards
    from mesm_core.data.merging import merge as join
    from mesm_core.errors import count

    if len(sources) < 2:
        raise typer.BadParameter(
            "give at least one feature file, and the file to write last", param_hint="SHARD... OUT"
        )
    shards = find_shards(sources[:-1])
    with render.bytes_progress("Merging", sum(path.stat().st_size for path in shards)) as advance:
        report = join(shards, Path(sources[-1]), overwrite=overwrite, progress=advance)
    if report.missing_shards:
        render.warn(f"Shards are missing: {', '.join(report.missing_shards)}.")
    if json_:
        render.data(
            {
                "out": str(report.out),
                "files": len(shards),
                "videos": report.videos,
                "repeated": report.repeated,
                "rows": report.rows,
                "bytes": report.bytes,
                "missing_shards": report.missing_shards,
            }
        )
        return
    twice = f" ({count(report.repeated, 'copy')} left out)" if report.repeated else ""
    size = f"{count(report.rows, 'row')}, {report.bytes / 1e6:.1f} MB"
    render.say(
        f"{render.plain(str(report.out))}: {count(report.videos, 'video')} of {len(shards)} files{twice}, {size}"
    )


def _report(report: Conversion, *, as_json: bool) -> None:
    """Print what a conversion did; raise where videos were left out."""
    from mesm_core.errors import FeatureError, count

    if as_json:
        render.data(
            {
                "out": str(report.out),
                "videos": report.videos,
                "already_there": report.skipped,
                "frames": report.frames,
                "bytes": report.bytes,
                "dim": report.width,
                "bad": [{"file": where, "reason": reason} for where, reason in report.bad],
            }
        )
    else:
        there = f" ({report.skipped} more were there already)" if report.skipped else ""
        size = f"{count(report.frames, 'frame')}, width {report.width}, {report.bytes / 1e6:.1f} MB"
        render.say(f"{report.out}: {count(report.videos, 'video')}{there}, {size}")
    if report.bad:
        reasons = "\n".join(f"  {where}: {reason}" for where, reason in report.bad)
        raise FeatureError(
            f"{len(report.bad)} of {len(report.bad) + report.videos + report.skipped} videos were left out:\n{reasons}",
            hint=f"The others are in {report.out}. Mend these and add them with --resume.",
        )
