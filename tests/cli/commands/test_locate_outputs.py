"""Outputs of ``mesm locate``: tables, subtitles, edit lists, clips and pages; and weights that it downloads."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from mesm_core.inference.answers import Answer
from mesm_core.inference.clips import plan_clips
from mesm_core.inference.exchange import Timecode, csv_text, edl_text, srt_text
from mesm_core.inference.locate import Located
from mesm_core.pages.located import video_address, write_located_page
from mesm_core.video.probe import probe
from tests.backbones.stand_in_hub import serving
from tests.video.made import film

QUERY = "a person opens the door"


def located(name: str, *answers: tuple[str, list[tuple[float, float, float]]]) -> Located:
    """Return answers about a video of 90 seconds."""
    made = tuple(
        Answer(query, np.array(rows).reshape(-1, 3), np.arange(9, dtype=np.float32), 90.0) for query, rows in answers
    )
    return Located(Path(name), 90.0, made)


ODD = located(
    'a "b", c.mp4',
    ('he said "hi", twice', [(61.5, 70.0, 0.9), (2.25, 3.0, 0.4)]),
    ("<b>&nbsp;</b>", [(3661.0, 3661.0, 0.1)]),
)


def test_csv_fields_are_quoted() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text([ODD], top=5))))
    assert [row["video"] for row in rows] == ['a "b", c.mp4'] * 3
    assert rows[0] == {
        "video": 'a "b", c.mp4', "query": 'he said "hi", twice', "rank": "1", "start": "61.5", "end": "70.0",
        "score": "0.9", "confidence": "",
    }  # fmt: skip


def test_subtitles_are_numbered_by_time() -> None:
    assert srt_text(ODD, top=5) == (
        '1\n00:00:02,250 --> 00:00:03,000\n2. he said "hi", twice\n\n'
        '2\n00:01:01,500 --> 00:01:10,000\n1. he said "hi", twice\n\n'
        "3\n01:01:01,000 --> 01:01:01,000\n<b>&nbsp;</b>\n"
    )


@pytest.mark.parametrize(
    ("rate", "message", "start", "end"),
    [
        (Fraction(25), "FCM: NON-DROP FRAME", "00:01:01:13", "00:01:10:00"),
        (Fraction(30000, 1001), "FCM: DROP FRAME", "00:01:01;15", "00:01:10;00"),
        (Fraction(60000, 1001), "FCM: DROP FRAME", "00:01:01;30", "00:01:10;00"),
        (Fraction(24000, 1001), "FCM: NON-DROP FRAME", "00:01:01:11", "00:01:09:22"),
        (Fraction(25, 2), "FCM: NON-DROP FRAME", "00:01:04:01", "00:01:12:11"),
    ],
)
def test_edit_lists_count_frames_at_the_real_rate(rate: Fraction, message: str, start: str, end: str) -> None:
    lines = edl_text([ODD], top=5, rate=rate).splitlines()
    assert lines[1] == message
    assert lines[3].split()[:6] == ["001", "AX", "V", "C", start, end]
    assert lines[3].split()[6] in ("00:00:00:00", "00:00:00;00")
    assert lines[4] == '* FROM CLIP NAME: a "b", c.mp4'
    events = [line.split() for line in lines if re.match(r"\d{3} ", line)]
    assert [event[6] for event in events[1:]] == [event[7] for event in events[:-1]]
    assert events[-1][4] != events[-1][5]


def test_drop_frame_timecode_follows_the_clock() -> None:
    code = Timecode(Fraction(30000, 1001))
    written = [code.text(frame) for frame in range(1795, 1803)]
    assert written[:5] == ["00:00:59;25", "00:00:59;26", "00:00:59;27", "00:00:59;28", "00:00:59;29"]
    assert written[5:] == ["00:01:00;02", "00:01:00;03", "00:01:00;04"]
    assert code.text(code.frame(3600.0)) == "01:00:00;00"
    assert len({code.text(frame) for frame in range(20_000)}) == 20_000


def test_clips_have_distinct_names() -> None:
    one = located("x/a.mp4", ("open!", [(12.4, 18.0, 0.5)]))
    assert [clip.target.name for clip in plan_clips([one], Path("c"), top=3)] == ["a_01_0012.4-0018.0.mp4"]
    two = located("y/a.webm", ("open", [(1, 2, 0.5)]), ("Open?", [(1, 2, 0.5)]))
    assert [clip.target.name for clip in plan_clips([one, two], Path("c"), top=3, fast=True)] == [
        "a_open_01_0012.4-0018.0.mp4",
        "a-2_open_01_0001.0-0002.0.mkv",
        "a-2_open-2_01_0001.0-0002.0.mkv",
    ]
    long = located(f"{'é' * 120}.mp4", ("word " * 90, [(1, 2, 0.5)]), ("other", []))
    assert all(len(clip.target.name.encode()) < 255 for clip in plan_clips([long], Path("c"), top=1))


class _Seen(HTMLParser):
    """Collects the tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_page_links_to_the_video(tmp_path: Path) -> None:
    name = 'it\'s "50%" #1 <b>?.mp4'
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / name).write_bytes(b"x")
    found = located(str(tmp_path / "films" / name), ("</script><b>x</b>", [(2.0, 5.0, 0.9), (1.0, 2.0, 0.5)]))
    page = tmp_path / "pages" / "my page.html"
    write_located_page(page, [found], top=5, note="<i>")
    text = page.read_text()
    seen = _Seen(text)
    (film_,) = seen.of("video")
    address = str(film_["src"])
    assert re.fullmatch(r"[\w./%~-]+", address)
    assert (page.parent / unquote(address)).read_bytes() == b"x"
    assert [button["data-start"] for button in seen.of("button")] == ["2.000", "1.000", "2.000", "1.000"]
    assert not seen.of("b")
    assert not seen.of("link")[1:]
    assert "http" not in text
    assert len(seen.of("script")) == 1
    assert len(seen.of("polyline")) == 1
    assert video_address(Path("/a/b:c.mp4"), Path("/a")) == "b%3Ac.mp4"


def test_clips_are_written_completely_or_not_at_all(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "my.mp4", sound=True)
    words = ["locate", "my.mp4", QUERY, *zero, "--top", 2, "--cut", "clips"]
    done = mesm(*words, "--json")
    assert done.code == 0, done.err
    message = json.loads(done.out)
    clips = message["clips"]
    assert 0 < len(clips) <= 2
    assert sorted(path.name for path in Path("clips").iterdir()) == sorted(Path(c["path"]).name for c in clips)
    first = clips[0]
    assert first["path"] == f"clips/my_01_{first['start']:06.1f}-{first['end']:06.1f}.mp4"
    found = probe(Path(first["path"]))
    assert found.duration_s == pytest.approx(first["end"] - first["start"], abs=0.25)
    before = {path: path.read_bytes() for path in Path("clips").iterdir()}
    again = mesm(*words)
    assert again.code == 2
    assert "already exists" in again.err
    assert {path: path.read_bytes() for path in Path("clips").iterdir()} == before
    assert mesm(*words, "--overwrite", "--fast").code == 0
    (here / "file").write_text("")
    assert "is a file" in mesm("locate", "my.mp4", QUERY, *zero, "--cut", "file").err
    assert "--cut" in mesm("locate", "my.mp4", QUERY, *zero, "--fast").err


@pytest.mark.parametrize("ending", ["csv", "srt", "edl", "json"])
def test_the_suffix_determines_the_format(mesm: Any, here: Path, zero: list[object], ending: str) -> None:
    film(here / "my.mp4")
    done = mesm("locate", "my.mp4", QUERY, *zero, "-o", f"out.{ending}", "--page", "out.html")
    assert done.code == 0, done.err
    assert not done.out
    shown = mesm("locate", "my.mp4", QUERY, *zero, "--format", ending)
    written = Path(f"out.{ending}").read_text()
    assert re.sub(r'"(cached|page)": .*', "", shown.out) == re.sub(r'"(cached|page)": .*', "", written)
    assert "already exists" in mesm("locate", "my.mp4", QUERY, *zero, "-o", f"out.{ending}").err
    own = mesm("locate", "my.mp4", QUERY, *zero, "-o", "my.mp4", "--format", ending, "--overwrite")
    assert "one of the files this command reads" in own.err


def test_invalid_formats_are_refused_before_any_work(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "a.mp4", 2)
    film(here / "b.mp4", 2, rate=10)
    asked = ["locate", "a.mp4", "b.mp4", QUERY, *zero]
    for words, message in (
        (["--format", "srt"], "subtitles are for one video"),
        (["--format", "edl"], "different frame rates"),
        (["-o", "answers.txt"], "does not say the format"),
        (["--page", "page.pdf"], "the file name of a page must end in .html"),
        (["--json", "--format", "csv"], "not both"),
        (["--window", "x"], "window must be auto, off"),
        (["--clip-len", "0"], "is not a number of seconds"),
        (["--device", "tpu"], "Unknown device"),
    ):
        done = mesm(*asked, *words)
        assert done.code == 2, words
        assert message in " ".join(done.err.replace("│", " ").split())
    assert not (here.parent / "cache" / "features").exists()


def test_videos_of_different_frame_rates_share_a_csv_file(mesm: Any, here: Path, zero: list[object]) -> None:
    film(here / "a.mp4", 2)
    film(here / "b.mp4", 2, rate=10)
    done = mesm("locate", "a.mp4", "b.mp4", QUERY, *zero, "--format", "csv")
    assert done.code == 0, done.err
    assert {row["video"] for row in csv.DictReader(done.out.splitlines())} == {"a.mp4", "b.mp4"}


def test_missing_weights_are_downloaded_on_request(
    mesm: Any, here: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(here / "my.mp4", 2)
    content = archive.read_bytes()
    with serving(content) as hub:
        digest = hashlib.sha256(content).hexdigest()
        line = f'[clip-b32]\nfile = "ViT-B-32.pt"\nurl = "{hub.address}/ViT-B-32.pt"\nsha256 = "{digest}"\n'
        (here / "mine.toml").write_text(f'{line}for = "CLIP"\nlicence = "MIT"\nsize = {len(content)}\n')
        monkeypatch.setenv("MESM_WEIGHTS", str(here / "mine.toml"))
        refused = mesm("locate", "my.mp4", QUERY)
        assert refused.code == 2
        assert not hub.asked
        done = mesm("locate", "my.mp4", QUERY, "--yes", "--json")
        assert done.code == 0, done.err
        assert hub.asked
        del hub.asked[:]
        assert mesm("locate", "my.mp4", QUERY, "--yes").code == 0
        assert not hub.asked


def test_a_user_is_asked_once(mesm: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(here / "my.mp4", 2)
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("mesm_cli.render.ask", answer)
    done = mesm("locate", "my.mp4", QUERY)
    assert done.code == 2
    assert asked == ["Download them now?"]
    assert "354.0 MB, licence MIT" in " ".join(done.err.split())
