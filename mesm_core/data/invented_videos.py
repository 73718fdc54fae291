"""Short synthetic videos of moving shapes, with sentences that describe them, for demonstrations and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mesm_core.data.readers.json_lines import write_lines
from mesm_core.files import make_folder, replacing, write_atomically
from mesm_core.types import Query

COLOURS = {
    "red": (225, 45, 40),
    "green": (40, 185, 70),
    "blue": (45, 85, 235),
    "yellow": (240, 215, 50),
    "purple": (165, 60, 205),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "ring")
MOTIONS = ("moves left", "moves right", "rises", "falls", "grows", "shrinks", "blinks", "rests")
ARTICLES = ("the", "a")
GROUNDS = ("plain", "striped", "spotted")
SIZE = (160, 120)
"""Width and height of a picture."""
FPS = 8
TEXT_DIM = 32
BIG, SMALL = 40.0, 14.0
"""Half the height of a shape at its largest and smallest, in pixels."""
BLINK_SECONDS = 1.5  # features sampled every second or two must not always see the same phase


@dataclass(frozen=True, slots=True)
class Event:
    """The motion of one shape from ``start`` to ``end`` (seconds); no other shape is visible in that time."""

    start: float
    end: float
    colour: str
    shape: str
    motion: str

    def sentence(self, article: str) -> str:
        """Return the event in words.

        >>> Event(0, 4, "red", "ring", "falls").sentence("a")
        'A red ring falls.'
        """
        return f"{article.capitalize()} {self.colour} {self.shape} {self.motion}."


@dataclass(frozen=True)
class InventedVideos:
    """Paths of synthetic videos: ``videos``: folder of .mp4 files; ``annotations``: folder of SPLIT.jsonl files;
    ``glove``: word vectors in GloVe's text format."""

    videos: Path
    annotations: Path
    glove: Path


def write_invented_videos(
    root: Path, *, videos: Mapping[str, int], seed: int = 0, seconds: tuple[float, float] = (3.0, 8.0)
) -> Iterator[str]:
    """Write videos, annotations and word vectors below ``root``; yield the name of each video once it is written.

    A video shows three to five events, one after another, with short pauses. Two events of one video differ in colour
    or in both shape and motion, so that a sentence describes one of them only. Colours, motions, backgrounds and times
    are drawn for each video, from the same distribution for every split. The same arguments give the same frames.

    Args:
        videos: number of videos by split; seconds: shortest and longest event.

    Raises:
        OutputError: something could not be written.
    """
    rng = np.random.default_rng(seed)
    made = invented_places(root)
    make_folder(made.videos)
    write_atomically(made.glove, _word_vectors(rng).encode())
    for split, number in videos.items():
        queries: list[Query] = []
        for place in range(number):
            vid = f"{split}-{place:02}"
            events, duration = draw_events(rng, seconds)
            draw_video(made.videos / f"{vid}.mp4", events, duration, _ground(rng))
            for event in events:
                sentence = event.sentence(str(rng.choice(ARTICLES)))
                windows = ((event.start, event.end),)
                queries.append(Query(len(queries) + 1, vid, sentence, duration, windows))
            yield vid
        write_lines(made.annotations / f"{split}.jsonl", queries, overwrite=True)


def invented_places(root: Path) -> InventedVideos:
    """Return where ``write_invented_videos`` writes below ``root``."""
    return InventedVideos(root / "videos", root, root / "glove.invented.txt")


def draw_events(rng: np.random.Generator, seconds: tuple[float, float]) -> tuple[list[Event], float]:
    """Return a video's events in order, and its duration in seconds; times fall on frames."""
    events: list[Event] = []
    at, wanted = _on_frame(rng.uniform(0, 2)), int(rng.integers(3, 6))
    while len(events) < wanted:
        looks = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)), str(rng.choice(MOTIONS))
        if not all(_distinguishable(looks, event) for event in events):
            continue
        end = at + _on_frame(rng.uniform(*seconds))
        events.append(Event(at, end, *looks))
        at = end + _on_frame(rng.uniform(0, 2))
    return events, max(at, events[-1].end)


def draw_video(path: Path, events: Sequence[Event], duration: float, ground: np.ndarray) -> None:
    """Write an .mp4 of events on a ground (height, width, 3) uint8.

    Raises:
        OutputError: it could not be written.
    """
    with replacing(path) as target, av.open(str(target), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "23", "threads": "1"}
        stream.codec_context.time_base = Fraction(1, FPS)
        for number in range(round(duration * FPS)):
            frame = av.VideoFrame.from_ndarray(picture(events, number / FPS, ground), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def picture(events: Sequence[Event], time: float, ground: np.ndarray) -> np.ndarray:
    """Return the (height, width, 3) uint8 picture of a moment."""
    event = next((event for event in events if event.start <= time < event.end), None)
    if event is None or (event.motion == "blinks" and (time - event.start) % BLINK_SECONDS >= BLINK_SECONDS / 2):
        return ground
    x, y, half = _placed(event, (time - event.start) / (event.end - event.start))
    left, right = max(int(x - half), 0), min(int(x + half) + 1, SIZE[0])
    top, bottom = max(int(y - half), 0), min(int(y + half) + 1, SIZE[1])
    cover = _cover(event.shape, np.arange(left, right) + 0.5 - x, np.arange(top, bottom)[:, None] + 0.5 - y, half)
    drawn = ground.copy()
    box = drawn[top:bottom, left:right]
    box[:] = box + (np.array(COLOURS[event.colour]) - box) * cover[..., None]
    return drawn


def _placed(event: Event, share: float) -> tuple[float, float, float]:
    """Return the centre and half the height of an event's shape when ``share`` of it has passed, in pixels."""
    width, height = SIZE
    x, y, half = width / 2, height / 2, (BIG + SMALL) / 2
    along = 2 * share - 1
    if event.motion in ("moves left", "moves right"):
        x += (along if event.motion == "moves right" else -along) * (height / 2 - half)
    elif event.motion in ("rises", "falls"):
        y += (along if event.motion == "falls" else -along) * (height / 2 - half)
    elif event.motion in ("grows", "shrinks"):
        part = share if event.motion == "grows" else 1 - share
        half = SMALL + part * (BIG - SMALL)
    return x, y, half


def _cover(shape: str, across: np.ndarray, down: np.ndarray, half: float) -> np.ndarray:
    """Return the (height, width) share of each pixel that a shape covers, from 0 to 1.

    Args:
        across, down: (width,) and (height, 1) distances of the pixels from the shape's centre.
    """
    if shape == "square":
        outside = np.maximum(np.abs(across), np.abs(down)) - half
    elif shape == "triangle":
        outside = np.maximum(down - half, np.abs(across) * 0.9 - (down + half) * 0.45)
    else:
        outside = np.hypot(across, down) - half
        if shape == "ring":
            outside = np.maximum(outside, 0.55 * half - np.hypot(across, down))
    covered: np.ndarray = np.clip(0.5 - outside, 0, 1)
    return covered


def _ground(rng: np.random.Generator) -> np.ndarray:
    """Return a (height, width, 3) uint8 ground: a dull colour, plain or with a pattern."""
    width, height = SIZE
    ground = np.broadcast_to(rng.uniform(80, 125, size=3), (height, width, 3)).copy()
    kind = str(rng.choice(GROUNDS))
    if kind == "striped":
        angle, length = rng.uniform(0, np.pi), rng.uniform(12, 30)
        right, down = np.meshgrid(np.arange(width), np.arange(height))
        ground += 14 * np.sign(np.sin((right * np.cos(angle) + down * np.sin(angle)) * 2 * np.pi / length))[..., None]
    elif kind == "spotted":
        spots = rng.uniform(-20, 20, size=(height // 10, width // 10))
        ground += np.kron(spots, np.ones((10, 10)))[..., None]
    return ground.clip(0, 255).astype(np.uint8)


def _distinguishable(looks: tuple[str, str, str], event: Event) -> bool:
    colour, shape, motion = looks
    return colour != event.colour or (shape != event.shape and motion != event.motion)


def _word_vectors(rng: np.random.Generator) -> str:
    """Return a vector for each word of the sentences, as lines of GloVe's text format."""
    motions = [word for motion in MOTIONS for word in motion.split()]
    words = dict.fromkeys((*ARTICLES, *COLOURS, *SHAPES, *motions))
    return "".join(f"{word} {' '.join(f'{x:.5f}' for x in rng.normal(size=TEXT_DIM))}\n" for word in words)


def _on_frame(seconds: float) -> float:
    return round(seconds * FPS) / FPS
