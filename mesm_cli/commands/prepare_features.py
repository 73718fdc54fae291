"""``mesm prepare npy2hdf5``, ``hdf52npy`` and ``merge``: convert and merge feature files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesm_cli import options, render

if TYPE_CHECKING:
    from mesm_core.data.convert import Conversion


class Dtype(StrEnum):
    """Data types of stored features."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Compression(StrEnum):
    """HDF5 compression filters that every reader has or that come with h5py."""

    GZIP = "gzip"
    LZF = "lzf"


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE... OUT",
        help="Folders, files, quoted patterns, .txt lists, or archives (.tar, .tar.gz, .zip; ARCHIVE::FOLDER selects "
        "one folder). The HDF5 file to write comes last.",
    ),
]
Concat = Annotated[
    bool, typer.Option("--concat", help="Concatenate the features of each video from all sources, in this order.")
]
MaxSkew = Annotated[
    int,
    typer.Option(
        "--max-skew",
        min=0,
        help="With --concat: leave out videos whose sources differ by more frames than this. Smaller differences are "
        "cut at the end.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", help="Array to read from .npz files. Default: features, or the only array.", show_default=False
    ),
]
NameRegex = Annotated[
    str | None,
    typer.Option(
        "--name-regex",
        help="Take the video name from the file name: the match, or its first group.",
        show_default=False,
    ),
]
NameFormat = Annotated[
    str | None,
    typer.Option(
        "--name-format",
        help="Format of the video name; {} is the name without this option. Example: '{}.avi'.",
        show_default=False,
    ),
]
DtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", help="Convert to this data type. Default: as stored.", show_default=False)
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        min=1e-6,
        help="Frames per second of the features. Stores each video's duration, which predict reads.",
        show_default=False,
    ),
]
CompressionOption = Annotated[
    Compression | None, typer.Option("--compression", help="Compress each video.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted conversion, or add new videos.")]


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
    """Convert .npy or .npz features, one file for each video, to one HDF5 file.

    Archives are streamed; nothing is unpacked to disk.

    Examples:

      mesm prepare npy2hdf5 features/ data/TACoS/c3d.hdf5

      mesm prepare npy2hdf5 --concat clip/ slowfast/ data/mine.hdf5

      mesm prepare npy2hdf5 tacos.tar.gz::clip clip.hdf5 --name-format '{}.avi'
    """
    from mesm_core.data import convert, npy_files
    from mesm_core.inputs import file_size
    from mesm_core.places import refuse_inputs

    if len(sources) < 2:
        raise typer.BadParameter("give at least one source, and the HDF5 file last", param_hint="SOURCE... OUT")
    out = Path(sources[-1])
    refuse_inputs([out], map(Path, sources[:-1]))  # a list of paths is no source of features, but an input
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
    folder: Annotated[Path, typer.Argument(help="Output folder for the .npy files, one for each video.")],
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Convert an HDF5 file of features to .npy files, one for each video."""
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
        typer.Argument(
            metavar="SHARD... OUT", help="Feature files or quoted patterns. The HDF5 file to write comes last."
        ),
    ],
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Merge feature files with different videos, such as the shards of `mesm extract`, into one file.

    All files must have been made with the same settings. A video that is in several files must have the same features
    in all of them.

    Example:

      mesm prepare merge 'clip_image.*-of-8.hdf5' clip_image.hdf5
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
    twice = f" ({count(report.repeated, 'duplicate')} left out)" if report.repeated else ""
    size = f"{count(report.rows, 'row')}, {report.bytes / 1e6:.1f} MB"
    render.say(f"{report.out}: {count(report.videos, 'video')} from {len(shards)} files{twice}, {size}")


def _report(report: Conversion, *, as_json: bool) -> None:
    """Print the result of a conversion. Raise an error if videos were left out."""
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
        there = f" ({report.skipped} more existed already)" if report.skipped else ""
        size = f"{count(report.frames, 'frame')}, width {report.width}, {report.bytes / 1e6:.1f} MB"
        render.say(f"{report.out}: {count(report.videos, 'video')}{there}, {size}")
    if report.bad:
        reasons = "\n".join(f"  {where}: {reason}" for where, reason in report.bad)
        raise FeatureError(
            f"{len(report.bad)} of {len(report.bad) + report.videos + report.skipped} videos were left out:\n{reasons}",
            hint=f"The others are in {report.out}. Repair these and add them with --resume.",
        )
