"""Warnings about answers, each said once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesm_cli import render

if TYPE_CHECKING:
    from mesm_core.inference.answers import Answer

MOST_WARNINGS = 20


class Warned:
    """Warns of each thing once on stderr, and counts where there are very many."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._unknown = False

    def of(self, video: str, warning: str) -> None:
        """Warn of something about a video."""
        text = warning if warning.startswith(video) else f"{video}: {warning}"
        if text not in self._told:
            self._told.add(text)
            if len(self._told) <= MOST_WARNINGS:
                render.warn(f"{text.removesuffix('.')}.")

    def about(self, answer: Answer, video: str) -> None:
        """Warn of what a person should know before trusting an answer."""
        for warning in answer.warnings:
            self.of(video, warning)
        unknown = answer.unknown_words
        if unknown and not answer.all_words_unknown and not self._unknown:
            self._unknown = True
            note = (
                f"Note: the model does not know {', '.join(unknown)} in '{answer.query}'; --json lists such words by "
                "query."
            )
            render.note(render.plain(note))

    def rest(self) -> None:
        """Say how many warnings were not shown."""
        more = len(self._told) - MOST_WARNINGS
        if more > 0:
            render.warn(f"{more} more such warnings; --json has them all.")
