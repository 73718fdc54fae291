"""The page in Chromium: from a query to a moment and its clip, by keyboard, in dark and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mesm_core.inference.answers import Moment
from mesm_core.inference.locate import Located
from mesm_core.web.collection import Found, Hit
from tests.video.made import film
from tests.web.browsing import chromium, opened, wait_for
from tests.web.made import KnownCollection, served

QUERY = "a person opens the door"
TOKEN = "a-token-of-some-length"
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A video that browsers play, and one that they do not."""
    folder = tmp_path_factory.mktemp("films")
    return [film(folder / "kitchen.mp4", sound=True), film(folder / "street.mkv", sound=True)]


@pytest.fixture(scope="module")
def address(films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with both videos, prepared."""
    with served(KnownCollection(*films), tmp_path_factory.mktemp("served")) as client:
        yield str(client.base_url).rstrip("/")


def search(page: Any) -> None:
    page.fill("#query", QUERY)
    page.keyboard.press("Enter")
    wait_for(page, "document.querySelector('#status').textContent.includes('moments in')")


def serious(page: Any) -> list[str]:
    """Return the serious violations that axe finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": AXE_TAGS}}).response["violations"]
    return [
        f"{violation['id']}: {violation['nodes'][0]['html']}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]


def test_from_the_query_to_the_clip_with_the_keyboard_only(browser: Any, address: str, tmp_path: Path) -> None:
    with opened(browser, address, width=360, scheme="dark") as page:
        press, focused = page.keyboard.press, lambda: page.evaluate("document.activeElement.getAttribute('aria-label')")
        page.wait_for_selector("#results li")
        press("/")
        page.keyboard.type(QUERY)
        press("Enter")
        wait_for(page, "document.querySelector('#status').textContent === '4 moments in 2 videos.'")
        while not page.evaluate("document.activeElement.matches('#results a')"):
            press("Tab")
        press("Enter")
        page.wait_for_selector("#moments li")
        assert page.evaluate("document.activeElement.id") == "viewer-title"
        assert page.text_content("#viewer-title") == "kitchen.mp4"
        press("n")
        wait_for(page, "document.querySelector('#film').currentTime >= 6")  # the first one was chosen already
        press("p")
        wait_for(page, "(time => time >= 2 && time < 5)(document.querySelector('#film').currentTime)")
        assert "t=2.00-5.00" in page.url
        while focused() != "Download 0:02.0 – 0:05.0 as a clip":
            press("Tab")
        with page.expect_download() as waiting:
            press("Enter")
        waiting.value.save_as(tmp_path / "clip.mp4")
        assert waiting.value.suggested_filename == "kitchen_0002.0-0005.0.mp4"
        press("Escape")
        assert page.is_hidden("#viewer")
    with av.open(str(tmp_path / "clip.mp4")) as clip:
        assert clip.duration == pytest.approx(3e6, rel=0.1)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (800, "light"), (1600, "dark")])
def test_no_width_or_scheme_has_serious_problems_of_access(browser: Any, address: str, width: int, scheme: str) -> None:
    with opened(browser, address, width=width, scheme=scheme) as page:
        page.wait_for_selector("#results li")
        assert serious(page) == []
        search(page)
        page.click("#results a >> nth=0")
        page.wait_for_selector("#moments li")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert serious(page) == []


def test_a_video_that_browsers_cannot_play_is_played_in_clips(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        search(page)
        page.click("#results a:has-text('street.mkv') >> nth=1")
        page.wait_for_selector("#moments li")
        wait_for(page, "document.querySelector('#film').currentSrc.includes('/api/clip/')")
        page.click("#bars button >> nth=1")
        wait_for(page, "document.querySelector('#film').currentTime >= 6")
        assert page.text_content("#moments .on b") == "0:06.0 – 0:07.5"


def test_the_next_part_of_a_converted_video_is_made_while_one_is_played(browser: Any, tmp_path: Path) -> None:
    collection = KnownCollection(film(tmp_path / "long.mkv", 24))
    with served(collection, tmp_path) as client, opened(browser, str(client.base_url).rstrip("/")) as page:
        asked: list[str] = []
        page.on("request", lambda sent: asked.append(f"{sent.method} {sent.url.partition('?')[2]}"))
        page.click("text=long.mkv")
        wait_for(page, "document.querySelector('#film').readyState >= 2")
        page.fill("#position", "19")
        page.click("#play")
        wait_for(page, "document.querySelector('#film').currentSrc.includes('start=20.00')")
        wait_for(page, "document.querySelector('#clock').textContent > '0:20.2'")
        clips = [each for each in asked if "preview=true" in each]
        assert clips[0].startswith("GET start=0.00&end=20.00")
        (made,) = [each for each in clips if each.startswith("HEAD")]
        assert made.startswith("HEAD start=20.00&end=2")
        assert made.replace("HEAD", "GET") in clips


class Crossing(KnownCollection):
    """The best moment of each video lies in two of the parts in which videos are converted."""

    def locate(self, video: str, query: str) -> Located | None:
        located = super().locate(video, query)
        assert located is not None
        answer = replace(located.answers[0], windows=np.array([[19.0, 21.0, 0.9], [1.0, 2.0, 0.4]]), seen=24.0)
        return replace(located, duration=24.0, answers=(answer,))


def test_a_moment_in_two_parts_of_a_converted_video_stops_at_its_end(browser: Any, tmp_path: Path) -> None:
    collection = Crossing(film(tmp_path / "long.mkv", 24))
    with served(collection, tmp_path) as client, opened(browser, str(client.base_url).rstrip("/")) as page:
        search(page)
        page.click("#results a >> nth=0")
        page.click("#bars button >> nth=0")
        wait_for(page, "document.querySelector('#clock').textContent > '0:20.0'")
        wait_for(page, "document.querySelector('#play').textContent === 'Play'")
        assert "0:20.9" <= page.text_content("#clock") < "0:23.0"


def test_a_moment_stops_at_its_end(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        search(page)
        page.click("#results a >> nth=0")
        page.click("#moments li >> nth=1 >> button")
        wait_for(page, "document.querySelector('#play').textContent === 'Pause'")
        wait_for(page, "document.querySelector('#play').textContent === 'Play'")
        assert page.evaluate("document.querySelector('#film').currentTime") == pytest.approx(7.6, abs=0.4)


def test_below_the_threshold_there_is_no_confident_answer(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        search(page)
        page.click("#results a >> nth=0")
        page.wait_for_selector("#moments li")
        for least, shown in [("50", 1), ("81", 0), ("0", 2)]:
            page.fill("#least", least)
            assert page.locator("#moments li").count() == shown
            assert page.locator("#results li").count() == 2 * shown
            none = "No confident answer. The best one: 0:02.0 – 0:05.0, 80% sure."
            assert page.text_content("#answer-note") == page.text_content("#found-note") == ("" if shown else none)


class Similar(KnownCollection):
    """An index without calibration: the moment of greatest similarity has the least score."""

    calibrated = False

    def search(self, query: str, *, top: int) -> Found:
        moments = [Moment(2.0, 5.0, 0.0), Moment(1.0, 3.0, 0.75)]
        hits = [Hit(key, moment, 0.3123 - moment.score / 10) for key, moment in zip(self._videos, moments, strict=True)]
        return Found(tuple(hits), 2)


def test_moments_in_the_order_of_their_similarity_show_it(browser: Any, films: list[Path], tmp_path: Path) -> None:
    with served(Similar(*films), tmp_path) as client, opened(browser, str(client.base_url).rstrip("/")) as page:
        search(page)
        cards = page.locator("#results .about").all_inner_texts()
        assert [card.split("\n") for card in cards] == [
            ["0:02.0 – 0:05.0", "score 0.00", "kitchen.mp4", "similarity 0.312"],
            ["0:01.0 – 0:03.0", "score 0.75", "street.mkv", "similarity 0.237"],
        ]
        page.fill("#least", "80")
        best = "No confident answer. The best one: 0:01.0 – 0:03.0, score 0.75."
        assert page.text_content("#found-note") == best


def test_the_status_line_counts_what_is_shown(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        page.click("text=kitchen.mp4")
        page.wait_for_selector("#viewer-title:visible")
        page.fill("#query", QUERY)
        page.keyboard.press("Enter")
        wait_for(page, "document.querySelector('#status').textContent === '2 moments in kitchen.mp4.'")
        page.fill("#least", "50")
        assert page.text_content("#status") == "1 moment in kitchen.mp4."
        page.select_option("#scope", "all")
        page.click("#ask .main")
        wait_for(page, "document.querySelector('#status').textContent === '2 moments in 2 videos.'")
        page.click("#results a >> nth=1")
        wait_for(page, "document.querySelector('#status').textContent === '1 moment in street.mkv.'")
        page.click("text=Close")
        wait_for(page, "document.querySelector('#status').textContent === '2 moments in 2 videos.'")


def test_a_picture_that_cannot_be_made_leaves_its_place_empty(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        picture = page.locator("#results img").first
        before = picture.bounding_box()
        picture.dispatch_event("error")
        assert page.locator("#results .picture").first.evaluate("place => place.tagName") == "SPAN"
        assert page.locator("#results .picture").first.bounding_box() == before


def test_a_link_opens_the_moment(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        search(page)
        page.click("#results a >> nth=0")
        page.wait_for_selector("#moments li")
        link = page.get_attribute("#moments li >> nth=1 >> text=Link", "href")
    with opened(browser, address) as page:
        page.goto(f"/{link}")
        page.reload()
        page.wait_for_selector("#moments .on")
        assert page.text_content("#moments .on b") == "0:06.0 – 0:07.5"
        assert page.input_value("#query") == QUERY
        wait_for(page, "document.querySelector('#film').currentTime === 6")


def test_one_video_is_asked_again(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        page.click("#results a >> nth=0")
        page.wait_for_selector("#viewer-title:has-text('kitchen.mp4')")
        assert page.input_value("#scope") == "one"
        page.fill("#query", "a dog")
        page.keyboard.press("Enter")
        page.wait_for_selector("#moments li")
        assert page.text_content("#status") == "2 moments in kitchen.mp4."
        assert page.get_attribute("#curve polyline", "points") != ""


def test_on_a_phone_the_player_is_in_view_and_the_name_leads_back(browser: Any, address: str) -> None:
    with opened(browser, address, width=360) as page:
        search(page)
        page.click("#results a >> nth=3")
        page.wait_for_selector("#moments li")
        wait_for(page, "document.querySelector('#film').getBoundingClientRect().top >= 0")
        wait_for(page, "document.querySelector('#film').getBoundingClientRect().bottom <= innerHeight")
        page.click(".brand")
        wait_for(page, "document.querySelector('#found-title').textContent === 'Videos'")
        assert page.is_hidden("#viewer")
        assert page.text_content("#results") == "kitchen.mp4street.mkv"


def test_preparation_shows_its_progress_and_can_be_cancelled(browser: Any, films: list[Path], tmp_path: Path) -> None:
    collection = KnownCollection(*films, prepared=False)
    collection.released.clear()
    with served(collection, tmp_path) as client, opened(browser, str(client.base_url).rstrip("/")) as page:
        page.click("text=Prepare 2 videos")
        wait_for(page, "document.querySelector('#job-text').textContent.includes('50%')")
        page.click("#job-cancel")
        wait_for(page, "document.querySelector('#problem').textContent === 'The preparation was cancelled.'")
        page.click("text=Prepare 2 videos")
        collection.released.set()
        wait_for(page, "document.querySelector('#status').textContent === '2 videos prepared.'")
        assert page.is_hidden("#prepare")
        assert page.is_hidden("#job")


def test_the_first_question_to_a_video_waits_for_its_features(browser: Any, films: list[Path], tmp_path: Path) -> None:
    collection = KnownCollection(*films, prepared=False)
    with served(collection, tmp_path) as client, opened(browser, str(client.base_url).rstrip("/")) as page:
        page.click("#results a >> nth=0")
        page.wait_for_selector("#viewer-title:has-text('kitchen.mp4')")
        page.fill("#query", QUERY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#moments li")


def test_errors_are_shown_and_the_page_lives(browser: Any, films: list[Path], tmp_path: Path) -> None:
    collection = KnownCollection(*films)
    with served(collection, tmp_path) as client:
        context = browser.new_context(base_url=str(client.base_url).rstrip("/"))
        page = context.new_page()
        page.goto("/")
        page.fill("#query", " . ")
        collection.work = lambda: 1 / 0  # type: ignore[assignment, return-value]
        page.keyboard.press("Enter")
        wait_for(page, "document.querySelector('#problem').textContent.includes('The server failed')")
        collection.work = lambda: None
        search(page)
        assert page.text_content("#problem") == ""
        context.close()


def test_the_login_form_leads_to_the_page_and_back(browser: Any, films: list[Path], tmp_path: Path) -> None:
    with served(KnownCollection(*films), tmp_path, token=TOKEN) as client:
        context = browser.new_context(base_url=str(client.base_url).rstrip("/"))
        page = context.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.goto("/#video=none")
        page.wait_for_selector("#token:focus")
        page.wait_for_load_state("networkidle")
        assert problems == []
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=This token is wrong.")
        assert serious(page) == []
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#results li")
        assert page.url.endswith("/#video=none")
        assert page.evaluate("document.cookie") == ""
        page.goto("/login#video=none")
        page.wait_for_selector("#results li")
        page.click("text=Log out")
        page.wait_for_selector("#token")
        context.close()


def test_an_upload_appears_among_the_videos(browser: Any, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    settings = {"uploads": tmp_path / "uploads", "max_upload": films[0].stat().st_size}
    with (
        served(KnownCollection(films[1]), tmp_path, **settings) as client,
        opened(browser, str(client.base_url).rstrip("/")) as page,
    ):
        page.wait_for_selector("#add")
        page.set_input_files("#file", films[0])
        page.wait_for_selector("#results li:has-text('kitchen.mp4')")
        page.set_input_files("#file", {"name": "big.mp4", "mimeType": "video/mp4", "buffer": b"x" * 10**6})
        page.wait_for_selector("text=larger than the server accepts")
