"""Extraction of missing features of the user's videos before training or evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesm_cli import options, render
from mesm_core.torchrun import this_process

if TYPE_CHECKING:
    from mesm_core.build import Paths
    from mesm_core.build.videos import OwnVideos
    from mesm_core.config.schema import Config
    from mesm_core.extraction.job import Extraction
    from mesm_core.inference.scoring import Changes

Videos = Annotated[
    Path | None,
    typer.Option(
        "--videos",
        help="Folder of your videos. Missing features are extracted first (dataset.videos).",
        show_default=False,
        rich_help_panel=options.DATA,
    ),
]
Backbones = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        help="Backbone for the extraction: clip-b32, slowfast-r50 or pixels. Repeatable (dataset.backbones).",
        show_default=False,
        rich_help_panel=options.DATA,
    ),
]


def ask_backbones() -> list[str]:
    """Ask for backbones and return them. The list is empty if there is no terminal to ask on."""
    from mesm_core.config.backbones import BACKBONES

    if not render.can_ask():
        return []
    for name, entry in BACKBONES.items():
        render.note(f"  {name}: {entry.width} values per row")
    words = render.ask_text("Backbones for the extraction, separated by spaces", default="clip-b32")
    return words.replace(",", " ").split()


def extract_missing(
    config: Config,
    paths: Paths,
    splits: Iterable[str],
    *,
    device: str,
    skip_missing: bool,
    say: Callable[[str], None] = render.note,
) -> None:
    """Extract the missing features of the videos of these splits, with progress. Do nothing without ``dataset.videos``.

    Videos that cannot be read are an error, or with ``skip_missing`` a warning.

    Raises:
        MesmError: the settings do not fit, a video is absent, or a feature file cannot be written.
    """
    if not config.dataset.videos:
        return
    from mesm_core.build.videos import find_own_videos, own_extraction, refuse_absent

    found = find_own_videos(config, paths, splits)
    if not skip_missing:
        refuse_absent(config, found)
    if this_process().world > 1:
        _refuse_in_team(config, found)
        return
    job = own_extraction(config, found, device=device)
    if job is not None:
        _carry_out(config, found, job, skip_missing=skip_missing, say=say)


def extract_for(checkpoint: Path, split: str | None, given: Changes, *, device: str, skip_missing: bool) -> None:
    """Extract the missing features of a split, if the model was trained on a folder of videos.

    Args:
        given: options that override the settings of the checkpoint.
    """
    from mesm_core.inference.scoring import settings_of_checkpoint
    from mesm_core.inference.zero_shot_files import names_zero_shot

    if not names_zero_shot(checkpoint):
        settings, paths, _ = settings_of_checkpoint(checkpoint, **given)
        splits = [split or settings.dataset.eval[0]]
        extract_missing(settings, paths, splits, device=device, skip_missing=skip_missing)


def _carry_out(
    config: Config, found: OwnVideos, job: Extraction, *, skip_missing: bool, say: Callable[[str], None]
) -> None:
    from mesm_cli.commands.extract import carry_out, raise_for_bad
    from mesm_core.errors import count
    from mesm_core.extraction.job import notes

    names = " + ".join(config.dataset.backbones)
    for note in notes(config.dataset.backbones):
        render.warn(note)
    if found.missing:
        of = f"{len(found.missing)} of {count(len(found.names), 'video')}"
        say(f"{of} without features: extracting {names}, {config.dataset.clip_len:g} s per row")
    carry_out(job)
    report = job.report
    for video, warning in report.warnings:
        render.warn(f"{video.path}: {warning}.")
    changed = report.videos - sum(video.name in set(found.missing) for video in job.videos) + len(report.bad)
    if changed > 0 and not report.bad:
        videos = count(changed, "video")
        render.warn(f"{videos} had features of other content or other settings; they were extracted again.")
    if report.videos:
        say(f"{count(report.videos, 'video')} extracted; the features are in {found.folder}")
    if report.bad and not skip_missing:
        raise_for_bad(job, hint="Repair or replace them, or leave them out with --skip-missing.")
    for video, reason in report.bad:
        render.warn(reason if str(video.path) in reason else f"{video.path}: {reason}")


def _refuse_in_team(config: Config, found: OwnVideos) -> None:
    """Refuse to train in several processes while features are missing, since one process must extract them."""
    from mesm_core.errors import ConfigError, count

    if found.missing:
        words = " ".join(f"--backbone {name}" for name in config.dataset.backbones)
        raise ConfigError(
            f"{count(len(found.missing), 'video')} without features, and several processes cannot extract them.",
            hint=f"Extract first: mesm extract {config.dataset.videos} {found.folder} {words} "
            f"--clip-len {config.dataset.clip_len:g} --resume",
        )
