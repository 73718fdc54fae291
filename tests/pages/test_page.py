"""Pages on narrow screens: what is wide scrolls or folds in its own frame, the page itself does not."""

from __future__ import annotations

from html.parser import HTMLParser

from mesm_core.pages.page import FEW_POINTS, cards, curves, page, paragraph, section, table
from mesm_core.pages.templating import source

STYLE = source("page.css")


class Frames(HTMLParser):
    """Collects the class of the element around each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.around: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.around.append(self.stack[-1])
        self.stack.append(dict(attrs).get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        self.stack.pop()


def test_every_table_has_a_frame_that_scrolls() -> None:
    text = cards([section("a", table(["x"], [[1]])), section("b", table(["key", "value"], [["a", "b"]], fold=True))])
    assert Frames(text).around == ["wide", "wide fold"]
    assert ".wide { overflow-x: auto; }" in STYLE
    assert ".fold th, .fold td { text-align: left; white-space: normal; overflow-wrap: anywhere; }" in STYLE


def test_nothing_else_is_wider_than_a_narrow_screen() -> None:
    # A track of 1fr is as wide as its longest word; minmax(0, 1fr) is not. Long names may be broken anywhere.
    assert "5.5rem minmax(0, 1fr)" in STYLE
    assert ".cards { grid-template-columns: minmax(0, 1fr); }" in STYLE
    assert "h1, h2, h3, .stats span, .key span { overflow-wrap: anywhere; }" in STYLE


def test_text_is_escaped_once_wherever_it_stands() -> None:
    text = """<i> & "q" 'a'"""
    parts = [paragraph(text), table([text], [[text]]), section(text, paragraph(text))]
    written = page(text, text, parts)
    assert "<i>" not in written
    assert written.count("&lt;i&gt; &amp; &#34;q&#34; &#39;a&#39;") == 8
    assert "&amp;amp;" not in written


def test_a_curve_of_few_points_shows_each_of_them() -> None:
    """A line through one point has no length, so without a dot nothing is visible."""
    few = curves({"one": [(0.0, 0.5)], "two": [(0.0, 0.25), (1.0, 0.75)]}, x="confidence")
    assert few.count('class="dot"') == 3
    many = curves({"many": [(float(n), n / 7) for n in range(FEW_POINTS + 1)]}, x="epoch")
    assert 'class="dot"' not in many
