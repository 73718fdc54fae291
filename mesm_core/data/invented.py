"""A small synthetic dataset in the layout of TACoS, learnable in a minute, for demonstrations and tests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.files import make_folder, write_atomically
from mesm_core.places import explained

ACTORS = ("person", "woman", "man")
ACTIONS = ("cuts", "washes", "peels", "opens", "takes", "stirs", "pours", "grates", "drops", "weighs")
OBJECTS = ("carrot", "knife", "bowl", "drawer", "pan", "egg", "bread", "lemon", "board", "kettle")
FILLERS = ("the", "a", "in", "kitchen")
VIDEO_FPS = 25.0


@dataclass(frozen=True)
class Invented:
    """Paths of a synthetic dataset."""

    root: Path
    npy: Path
    annotations: Path
    glove: Path
    feature_fps: float


def write_invented(
    root: Path,
    *,
    videos: Mapping[str, int],
    dim: int = 48,
    text_dim: int = 32,
    feature_fps: float = 0.5,
    noise: float = 0.3,
    seed: int = 0,
) -> Invented:
    """Write features (one .npy per video), annotations (TACoS's JSON) and word vectors (GloVe's text format).

    A video is a sequence of activities. A frame's feature is a fixed random projection of the vectors of the words that
    describe its activity, plus noise. The same arguments give the same bytes.

    Args:
        root: folder to write below; videos: number of videos by split.
        dim: width of the features; text_dim: of the word vectors; feature_fps: frames a second.
        noise: standard deviation of the noise, relative to the signal's.
    """
    made = Invented(root, root / "npy", root / "TACoS" / "annotations", root / "glove.invented.txt", feature_fps)
    rng = np.random.default_rng(seed)
    words = (*ACTORS, *ACTIONS, *OBJECTS, *FILLERS)
    vectors = {word: rng.normal(size=text_dim).astype(np.float32) for word in words}
    projection = rng.normal(size=(text_dim, dim)).astype(np.float32) / text_dim**0.5
    lines = (f"{word} {' '.join(f'{x:.5f}' for x in vector)}\n" for word, vector in vectors.items())
    write_atomically(made.glove, "".join(lines).encode())
    make_folder(made.npy)
    for split, count in videos.items():
        annotations = {}
        for number in range(count):
            vid = f"{split}-{number:03}"
            annotations[vid], frames = _video(rng, vectors, projection, feature_fps=feature_fps, noise=noise)
            content = io.BytesIO()
            np.save(content, frames)
            with explained(made.npy / f"{vid}.npy"):
                (made.npy / f"{vid}.npy").write_bytes(content.getvalue())
        text = json.dumps(annotations, indent=1) + "\n"
        write_atomically(made.annotations / f"{split}.json", text.encode())
    return made


def _video(
    rng: np.random.Generator,
    vectors: Mapping[str, np.ndarray],
    projection: np.ndarray,
    *,
    feature_fps: float,
    noise: float,
) -> tuple[dict[str, Any], np.ndarray]:
    segments = list(_segments(rng))
    duration = segments[-1][1]
    frames = max(round(duration * feature_fps), 2)
    times = (np.arange(frames) + 0.5) / frames * duration
    latent = np.zeros((frames, projection.shape[0]), np.float32)
    sentences = []
    for start, end, actor, action, thing in segments:
        inside = (times >= start) & (times < end)
        latent[inside] = (vectors[action] + vectors[thing]) / 2 + vectors[actor] / 4
        sentences.append(f"The {actor} {action} {rng.choice(['the', 'a'])} {thing}.")
    features = latent @ projection
    features += noise * features.std() * rng.normal(size=features.shape).astype(np.float32)
    annotation = {
        "timestamps": [[round(start * VIDEO_FPS), round(end * VIDEO_FPS)] for start, end, *_ in segments],
        "fps": VIDEO_FPS,
        "num_frames": round(duration * VIDEO_FPS),
        "sentences": sentences,
    }
    return annotation, features.astype(np.float16)


def _segments(rng: np.random.Generator) -> Iterator[tuple[float, float, str, str, str]]:
    actor = str(rng.choice(ACTORS))
    count = int(rng.integers(4, 8))
    pairs = rng.permutation(len(ACTIONS) * len(OBJECTS))[:count]
    at = 0.0
    for pair in pairs:
        end = at + float(rng.integers(8, 31))
        yield at, end, actor, ACTIONS[pair // len(OBJECTS)], OBJECTS[pair % len(OBJECTS)]
        at = end
