"""Extracts feature files from videos, one file per backbone; resumable, in one process or several."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mesm_core.config.backbones import BACKBONES
from mesm_core.errors import DeviceError, OutputError
from mesm_core.extraction.outputs import Output, join, output_path
from mesm_core.extraction.pipeline import Failed, Frames
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.setup import USUAL, Options, Setup
from mesm_core.extraction.shards import shard_text
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.weights import weights_of
from mesm_core.extraction.work import Event, Known, WorkFolder
from mesm_core.handover import call_in_thread
from mesm_core.places import refuse_existing, refuse_inputs


@dataclass
class Report:
    """Result of an extraction.

    ``outputs``: feature file by backbone; ``videos``: number of videos extracted; ``already``: number of videos whose
    features existed; ``rows``: number of new rows by backbone; ``frames``: number of decoded frames; ``bad``: videos
    without features, with the reasons; ``warnings``: partly damaged videos, with descriptions.
    """

    outputs: dict[str, Path] = field(default_factory=dict)
    videos: int = 0
    already: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    bad: list[tuple[VideoFile, str]] = field(default_factory=list)
    warnings: list[tuple[VideoFile, str]] = field(default_factory=list)


class Extraction:
    """Extracts features of videos with backbones and writes them to OUTDIR; ``run`` starts the work.

    Finished features are stored in a folder of parts in OUTDIR until the end, so they survive a kill.

    Args:
        videos: videos of this shard; names: backbones; weights: weights files by backbone.
        resume: add to existing files, and continue with stored parts; overwrite: replace existing files.
        dry: for a dry run; existing outputs are not checked.

    Raises:
        MesmError: a backbone cannot be built or has no rows of this length; an output is an input, or exists while
            neither ``resume`` nor ``overwrite`` is on, or has other videos with other settings.
    """

    def __init__(
        self,
        videos: Sequence[VideoFile],
        outdir: Path,
        names: Sequence[str],
        *,
        settings: Settings,
        weights: Mapping[str, Path] = {},
        options: Options = USUAL,
        resume: bool = False,
        overwrite: bool = False,
        dry: bool = False,
    ) -> None:
        self.videos = list(videos)
        self.options = options
        self.report = Report()
        specs = {name: weights_of(name, weights) for name in dict.fromkeys(names)}
        paths = {name: output_path(outdir, name, options.shard) for name in specs}
        suffix = "" if options.shard is None else f".{shard_text(options.shard)}"
        self._work = WorkFolder(outdir / f"extract{suffix}.parts")
        self._overwrite = overwrite
        if not dry:
            self._refuse_outputs(list(paths.values()), resume=resume)
        self._setup = Setup(specs, settings=settings, options=options, dry=dry)
        self.settings, self.backbones = self._setup.settings, self._setup.backbones
        self.devices = self._setup.devices
        self._outputs = [Output(paths[b.name], b, self.settings, adds=resume) for b in self.backbones]
        for output in self._outputs:
            output.refuse_mixing({video.name for video in self.videos})

    @property
    def parts(self) -> Path | None:
        """The folder of finished features that are not yet in the files, or None if there are none."""
        return self._work.path if self._work.has_parts else None

    def run(self) -> Generator[Event]:
        """Extract missing features, yielding events; write the files at the end, and fill ``report``.

        Raises:
            OutputError: a file could not be written; DeviceError: no node of a cluster is left. Finished parts are kept
                for ``resume``.
        """
        done: dict[str, str] = {}
        failed: dict[str, str | None] = {}
        try:
            with self._work.locked():
                if self._overwrite:
                    self._work.clear()
                for event in self._events():
                    if isinstance(event, Failed):
                        failed[event.video.name] = event.content
                    elif not isinstance(event, Frames):
                        done[event.video.name] = event.content
                    self._count(event)
                    yield event
                missing = self._join(done, failed)
                self.report.bad += [(video, missing[video.name]) for video in self.videos if video.name in missing]
                self._work.clear()
        except (OutputError, DeviceError) as error:
            if self.parts:
                kept = f"Finished videos are kept in {self.parts}; --resume continues from there."
                error.hint = f"{error.hint or ''} {kept}".strip()
            raise
        self.report.outputs = {o.backbone.name: o.path for o in self._outputs if o.path.exists()}

    def _join(self, done: Mapping[str, str], failed: Mapping[str, str | None]) -> dict[str, str]:
        """Write the files in a separate thread, where a signal cannot interrupt HDF5 in the middle of a call."""
        stop = threading.Event()
        return call_in_thread(
            lambda: join(self._outputs, done, failed, self._work.parts, shard=self.options.shard, stop=stop),
            stop=stop.set,
        )

    def _events(self) -> Iterator[Event]:
        known: Known = {output.backbone.name: output.known() for output in self._outputs}
        return self._setup.extract(self.videos, self._work.path, known=known)

    def _count(self, event: Event) -> None:
        report = self.report
        if isinstance(event, Frames):
            report.frames += event.count
        elif isinstance(event, Failed):
            report.bad.append((event.video, event.reason))
        else:
            report.videos += bool(event.rows)
            report.already += not event.rows
            for name, rows in event.rows.items():
                report.rows[name] = report.rows.get(name, 0) + rows
            if event.warning:
                report.warnings.append((event.video, event.warning))

    def _refuse_outputs(self, outputs: Sequence[Path], *, resume: bool) -> None:
        refuse_inputs(outputs, [video.path for video in self.videos])
        may_exist = resume or self._overwrite
        for path in outputs:
            if path.exists() and not path.is_dir() and not may_exist:
                raise OutputError(
                    f"{path} already exists.", hint="Use --resume to add videos to it, or --overwrite to replace it."
                )
            refuse_existing(path, overwrite=True)
        if self._work.has_parts and not may_exist:
            raise OutputError(
                f"{self._work.path} remains from an earlier extraction.",
                hint="Use --resume to finish it, or --overwrite to start over.",
            )


def notes(names: Sequence[str]) -> list[str]:
    """Return the notes to show when these backbones are used."""
    return [BACKBONES[name].note for name in dict.fromkeys(names) if BACKBONES[name].note]
