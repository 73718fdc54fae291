"""Shortens videos that have more frames than the model accepts, and warns about the consequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# An averaged frame may span this many clips, or this many seconds if the clip length is unknown.
COARSE_CLIPS = 2
COARSE_SECONDS = 4.0
# Frame rates deviate slightly from clip_len; a wrong clip_len deviates far more.
RATE_TOLERANCE = 0.15


@dataclass(frozen=True)
class Shortening:
    """How a video of more than ``max_frames`` frames is shortened.

    ``shorten``: ``mean`` averages its frames into bins, ``first`` keeps the first ones; ``clip_len``: seconds per
    frame, or -1 if the frames spread evenly over the duration.
    """

    max_frames: int
    shorten: str = "mean"
    clip_len: float = -1

    def seen(self, frames: int, duration: float) -> float:
        """Return the seconds, from the start, that the model sees of a video with that many frames.

        Training divides windows by (frames · clip_len), so the first frames of a longer video last that long. Where
        the frames have another rate than clip_len says, they last their share of the duration.

        >>> Shortening(75, "first", 2.0).seen(300, 600.0), Shortening(75, "first", 2.0).seen(75, 150.0)
        (150.0, 150.0)
        >>> Shortening(75, "first", -1).seen(100, 40.0), Shortening(75, "mean").seen(300, 600.0)
        (30.0, 600.0)
        """
        if self.shorten != "first" or frames <= self.max_frames:
            return duration
        share = duration * self.max_frames / frames
        clips = self.max_frames * self.clip_len
        return min(clips, duration) if abs(clips - share) <= RATE_TOLERANCE * share else share

    def seconds_a_frame(self, frames: int, duration: float) -> float | None:
        """Return the seconds that an averaged frame stands for, where they are too many for good answers; else None.

        >>> round(Shortening(194, "mean", 1).seconds_a_frame(3600, 3600.0), 1)
        18.6
        """
        if self.shorten == "first" or frames <= self.max_frames:
            return None
        seconds = duration / self.max_frames
        limit = COARSE_CLIPS * self.clip_len if self.clip_len > 0 else COARSE_SECONDS
        return seconds if seconds > limit else None

    def warnings(self, frames: int, duration: float) -> tuple[str, ...]:
        """Return warnings for the user about a video with that many frames."""
        seen, coarse = self.seen(frames, duration), self.seconds_a_frame(frames, duration)
        if seen < duration:
            return (
                f"only the first {seen:.1f} of {duration:.1f} seconds are seen "
                f"(dataset.max_frames = {self.max_frames}, the video has {frames} frames); later moments are not found",
            )
        if coarse is not None:
            return (
                f"its {frames} frames are averaged into {self.max_frames} (dataset.max_frames), "
                f"so each stands for {coarse:.1f} seconds and short moments may be missed",
            )
        return ()

    def warnings_of_all(self, videos: Sequence[tuple[int, float]]) -> list[str]:
        """Return warnings about many videos: one for those cut short, one for those averaged.

        Args:
            videos: the number of frames and the duration in seconds of each.
        """
        unseen = [duration - seen for frames, duration in videos if (seen := self.seen(frames, duration)) < duration]
        coarse = [s for frames, duration in videos if (s := self.seconds_a_frame(frames, duration)) is not None]
        lines = []
        if unseen:
            lines.append(
                f"{len(unseen)} of {len(videos)} videos have more than {self.max_frames} frames (dataset.max_frames); "
                f"up to {max(unseen):.1f} seconds at their ends are not seen."
            )
        if coarse:
            lines.append(
                f"{len(coarse)} of {len(videos)} videos have more than {self.max_frames} frames (dataset.max_frames), "
                f"which are averaged; a frame stands for up to {max(coarse):.1f} seconds."
            )
        return lines
