"""Warnings about answers; each is printed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesm_cli import render

if TYPE_CHECKING:
    from mesm_core.inference.answers import Answer

MOST_WARNINGS = 20


def note_no_confidence() -> None:
    """Say on stderr that the answers have no confidence, and how to get it."""
    from mesm_core.confidence.calibration import HOW_TO_CALIBRATE, NOT_CALIBRATED

    render.note(render.styled((f"{NOT_CALIBRATED} {HOW_TO_CALIBRATE}", "dim")))


class AnswerWarnings:
    """Prints each warning once on stderr, at most ``MOST_WARNINGS`` of them."""

    def __init__(self) -> None:
        self._printed: set[str] = set()
        self._noted_unknown_words = False

    def warn(self, video: str, warning: str) -> None:
        """Print a warning about a video."""
        text = warning if warning.startswith(video) else f"{video}: {warning}"
        if text not in self._printed:
            self._printed.add(text)
            if len(self._printed) <= MOST_WARNINGS:
                render.warn(f"{text.removesuffix('.')}.")

    def warn_about(self, answer: Answer, video: str) -> None:
        """Print the warnings of an answer."""
        for warning in answer.warnings:
            self.warn(video, warning)
        unknown = answer.unknown_words
        if unknown and not answer.all_words_unknown and not self._noted_unknown_words:
            self._noted_unknown_words = True
            note = (
                f"Note: the model does not know {', '.join(unknown)} in '{answer.query}'; --json lists unknown words "
                "for each query."
            )
            render.note(note)

    def count_the_rest(self) -> None:
        """Print how many warnings were left out."""
        more = len(self._printed) - MOST_WARNINGS
        if more > 0:
            render.warn(f"{more} more warnings of this kind; --json has all of them.")
