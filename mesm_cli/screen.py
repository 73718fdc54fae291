"""The console that ``render`` prints on."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


class Screen(Console):
    """Shows control characters of names and texts, such as the start of a colour code, in place of obeying them."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=segment.text.translate(CONTROL))

    def on_broken_pipe(self) -> None:
        """Let the command end as it does when other output cannot be written; rich would exit with code 1."""
        self.quiet = True
        raise BrokenPipeError
