"""Checks of annotations, features and text, which find mistakes that would otherwise go unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from mesm_core import hdf5
from mesm_core.build.origins import origin_problems
from mesm_core.build.paths import Paths
from mesm_core.build.text import build_text, with_counted_words
from mesm_core.build.videos import find_own_videos, refuse_absent
from mesm_core.config.schema import Config
from mesm_core.data.readers import make_reader, read_split
from mesm_core.data.splits import split_labels
from mesm_core.errors import FeatureError, MesmError, count, listing
from mesm_core.inputs import open_hdf5
from mesm_core.text.encoder import TextEncoder
from mesm_core.types import Query
from mesm_core.video.names import without_suffix

SAMPLED_VIDEOS = 8
# Frame rates deviate from clip_len by one or two frames per video; a wrong clip_len deviates far more.
RATE_TOLERANCE = 0.15
LENGTH_TOLERANCE = 3
LARGE_VALUE = 1e3
# Up to this many misfits are a warning (damaged videos); more of them are an error (features of other videos).
FEW_VIDEOS = 2
FEW_SHARE = 0.01


@dataclass(frozen=True)
class Finding:
    """The result of one check; ``level`` is ok, warning or error."""

    level: str
    subject: str
    message: str


def check_data(
    config: Config,
    paths: Paths,
    *,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
    statistics: Mapping[str, Any] = {},
) -> list[Finding]:
    """Check annotations, features and text.

    Args:
        strict: report repaired annotations as a warning; progress: called with the number of videos of each file.
        statistics: the data statistics of a checkpoint; features made with other settings than its training data are
            an error.
    """
    findings: list[Finding] = []
    queries: dict[str, tuple[Query, ...]] = {}
    for finding, split, read in _annotations(config, paths, strict=strict):
        findings.append(finding)
        if read:
            queries[split] = read
    to_extract: set[str] = set()
    if config.dataset.videos:
        finding, to_extract = _own_videos(config, paths, queries)
        findings.append(finding)
    findings += _features(config, paths, queries, progress, statistics, to_extract=to_extract)
    findings += _text(config, paths, queries)
    return findings


def _annotations(config: Config, paths: Paths, *, strict: bool) -> Iterator[tuple[Finding, str, tuple[Query, ...]]]:
    name = config.dataset.name
    needed = (config.dataset.train, *config.select_splits)
    for split, label in split_labels((*needed, *make_reader(name).splits)).items():
        subject = f"annotations {label}"
        try:
            read = read_split(name, paths.annotations, split)
        except MesmError as error:
            level = "error" if split in needed else "warning"
            yield Finding(level, subject, error.message), split, ()
            continue
        videos = len({query.vid for query in read.queries})
        message = f"{count(len(read.queries), 'query')}, {count(videos, 'video')}"
        if read.repairs:
            message += "; repaired: " + ", ".join(f"{number} {kind}" for kind, number in read.repairs.items())
        bare = sum(not query.windows for query in read.queries)
        if bare and split in needed:
            yield (
                Finding("error", subject, f"{message}; {count(bare, 'query')} without a window to learn or score"),
                split,
                (),
            )
            continue
        yield Finding("warning" if strict and read.repairs else "ok", subject, message), split, read.queries


def _own_videos(config: Config, paths: Paths, queries: Mapping[str, tuple[Query, ...]]) -> tuple[Finding, set[str]]:
    """Check the folder of videos; return also the ids of the videos whose features training will extract."""
    subject = "videos"
    try:
        found = find_own_videos(config, paths, queries)
        refuse_absent(config, found)
    except MesmError as error:
        return Finding("error", subject, error.message), set()
    missing = set(found.missing)
    to_extract = {q.vid for split in queries.values() for q in split if without_suffix(q.vid) in missing}
    if missing:
        names = " + ".join(config.dataset.backbones)
        message = f"{len(missing)} of {count(len(found.names), 'video')} have no features yet"
        return Finding("warning", subject, f"{message}: `mesm train` extracts them with {names}"), to_extract
    return Finding("ok", subject, f"all {count(len(found.names), 'video')} have features"), to_extract


def _features(
    config: Config,
    paths: Paths,
    queries: dict[str, tuple[Query, ...]],
    progress: Callable[[int], None] | None,
    statistics: Mapping[str, Any],
    *,
    to_extract: set[str],
) -> Iterator[Finding]:
    durations = {query.vid: query.duration for split in queries.values() for query in split}
    needed = {
        q.vid for split in (config.dataset.train, *config.select_splits) for q in queries.get(split, ())
    } - to_extract
    lengths: list[dict[str, int]] = []
    widths: list[int] = []
    for place, path in enumerate(paths.features):
        subject = path.name
        if to_extract and not path.exists():
            continue
        try:
            shapes, sample = _shapes_and_sample(path, durations)
        except FeatureError as error:
            yield Finding("error", subject, error.message)
            continue
        if progress is not None:
            progress(len(shapes))
        yield _presence(f"{subject} videos", needed, shapes)
        flat = {vid: shape for vid, shape in shapes.items() if len(shape) == 2 and 0 not in shape}
        if len(flat) < len(shapes):
            invalid = [vid for vid in shapes if vid not in flat]
            yield Finding(
                "error", f"{subject} shape", f"{len(invalid)} videos are not (frames, dim): {listing(invalid)}"
            )
        if not flat:
            continue
        found = {shape[1] for shape in flat.values()}
        if len(found) > 1:
            yield Finding("error", f"{subject} shape", f"videos of different widths: {listing(sorted(found))}")
        widths.append(max(found))
        lengths.append({vid: shape[0] for vid, shape in flat.items()})
        yield _rate(f"{subject} rate", config, {vid: (length, durations[vid]) for vid, length in lengths[-1].items()})
        yield frame_counts(f"{subject} frames", lengths[-1], durations)
        yield _values(f"{subject} values", sample)
        made, wrong = origin_problems(config, path, flat, place=place, statistics=statistics)
        yield from (Finding("error", f"{subject} origin", problem) for problem in wrong)
        if made and not wrong:
            yield Finding("ok", f"{subject} origin", f"made with {made}")
    if len(widths) == len(paths.features) and widths:
        yield _width(config, paths, widths)
    yield from _consistency(config, paths, lengths)


def _shapes_and_sample(path: Path, vids: Iterable[str]) -> tuple[dict[str, tuple[int, ...]], list[np.ndarray]]:
    """Return the shapes of the given videos in a feature file, and the frames of the first ones."""
    with open_hdf5(path) as file:
        nodes = {vid: node for vid in vids if isinstance(node := hdf5.find_video(file, vid), h5py.Dataset)}
        shapes = {vid: node.shape or () for vid, node in nodes.items()}
        flat = [vid for vid, shape in shapes.items() if len(shape) == 2 and 0 not in shape][:SAMPLED_VIDEOS]
        sample = [hdf5.as_float32(hdf5.read_numbers(nodes[vid], where=f"'{vid}' in {path}")) for vid in flat]
    return shapes, sample


def _presence(subject: str, needed: set[str], shapes: dict[str, tuple[int, ...]]) -> Finding:
    missing = sorted(needed - shapes.keys())
    if missing:
        return Finding("error", subject, f"{len(missing)} of {len(needed)} videos are missing: {listing(missing)}")
    return Finding("ok", subject, f"all {len(needed)} videos of training and validation are present")


def wrong_rate(rate: float, clip_len: float) -> str | None:
    """Return a message if the frame rate contradicts ``clip_len``, else None.

    >>> wrong_rate(5.9, 1.0)
    'looks like 5.9 frames/s, but clip_len 1 means 1: clip_len 0.17 would fit'
    """
    if clip_len < 0 or abs(rate * clip_len - 1) <= RATE_TOLERANCE:
        return None
    means = f"clip_len {clip_len:g} means {1 / clip_len:.2g}"
    return f"looks like {rate:.2g} frames/s, but {means}: clip_len {1 / rate:.2g} would fit"


def _rate(subject: str, config: Config, videos: dict[str, tuple[int, float]]) -> Finding:
    rate = float(np.median([length / duration for length, duration in videos.values()]))
    clip_len, wrong = config.dataset.clip_len, wrong_rate(rate, config.dataset.clip_len)
    if wrong:
        return Finding("error", subject, wrong)
    looks = f"looks like {rate:.2g} frames/s"
    if clip_len < 0:
        return Finding("ok", subject, f"{looks}; clip_len -1 spreads the frames over the duration")
    long = sum(length > config.dataset.max_frames for length, _ in videos.values())
    if long > len(videos) // 20 and config.dataset.shorten == "mean":
        message = f"{looks}, but {long} videos have more than max_frames = {config.dataset.max_frames}: moments shift"
        return Finding("warning", subject, message)
    return Finding("ok", subject, f"{looks}, clip_len {clip_len:g} fits")


def frame_counts(subject: str, lengths: Mapping[str, int], durations: Mapping[str, float]) -> Finding:
    """Check that the frame counts of the videos fit their durations at a common frame rate.

    The rate is not given. Videos may have been cut to a maximum length, or extended to a minimum length.

    Args:
        lengths: number of frames of each video; durations: seconds of each video.

    >>> seconds = {"a": 10.0, "b": 60.0, "c": 30.0, "d": 100.0}
    >>> frame_counts("x", {"a": 20, "b": 119, "c": 140, "d": 200}, seconds).message
    '1 of 4 videos have frames that contradict their durations at 2 frames/s: c has 140 for 30 s, not 60'
    """
    shortest, longest = min(lengths.values()), max(lengths.values())
    ratios = {vid: length / durations[vid] for vid, length in lengths.items()}
    uncut = [vid for vid, length in lengths.items() if shortest < length < longest] or list(lengths)
    # Many cut videos bias the median over all videos; many wrong ones bias that over uncut videos. Use the better one.
    rates = [float(np.median([ratios[vid] for vid in vids])) for vids in (uncut, lengths)]
    misfits, rate = min(
        ((_misfits(lengths, durations, rate, (shortest, longest)), rate) for rate in rates),
        key=lambda found: len(found[0]),
    )
    if not misfits:
        return Finding(
            "ok", subject, f"consistent with the durations of all {len(lengths)} videos at {rate:.2g} frames/s"
        )
    shown = [f"{vid} has {lengths[vid]} for {durations[vid]:.4g} s, not {rate * durations[vid]:.0f}" for vid in misfits]
    message = (
        f"{len(misfits)} of {len(lengths)} videos have frames that contradict their durations at {rate:.2g} frames/s: "
        f"{listing(shown, limit=5)}"
    )
    if len(misfits) <= max(FEW_VIDEOS, FEW_SHARE * len(lengths)):
        return Finding("warning", subject, message)
    return Finding("error", subject, f"{message}; are these the features of other videos?")


def _misfits(
    lengths: Mapping[str, int], durations: Mapping[str, float], rate: float, limits: tuple[int, int]
) -> list[str]:
    """Return the videos whose frames do not fit their durations; ``limits``: minimum and maximum length."""
    found = []
    for vid, length in lengths.items():
        expected = rate * durations[vid]
        at_a_limit = (length == limits[1] and expected > length) or (length == limits[0] and expected < length)
        if abs(length - expected) > max(LENGTH_TOLERANCE, RATE_TOLERANCE * expected) and not at_a_limit:
            found.append(vid)
    return found


def _values(subject: str, sample: Sequence[np.ndarray]) -> Finding:
    frames = [array for array in sample if array.ndim == 2 and array.size]
    if any(not np.isfinite(array).all() for array in frames):
        return Finding("error", subject, "NaN or infinity among the values")
    norms = np.concatenate([np.linalg.norm(array, axis=1) for array in frames])
    if (norms == 0).mean() > 0.05:
        return Finding("warning", subject, f"{(norms == 0).mean():.0%} of the frames are all zero")
    if any(len(array) > 1 and np.allclose(array, array[0]) for array in frames):
        return Finding("warning", subject, "a video's frames are all the same")
    largest = max(float(np.abs(array).max()) for array in frames)
    if largest > LARGE_VALUE:
        return Finding("warning", subject, f"values up to {largest:.3g}: are these features, or pixels?")
    state = "already of length 1" if np.allclose(norms, 1, atol=1e-2) else f"of length {np.median(norms):.3g}"
    return Finding("ok", subject, f"frames {state}; they are scaled to 1 when read")


def _width(config: Config, paths: Paths, widths: Sequence[int]) -> Finding:
    total, wanted, usual = sum(widths), config.model.video_dim, config.dataset.feature_dims
    shown = " + ".join(map(str, widths)) + (f" = {total}" if len(widths) > 1 else "")
    if total != wanted:
        return Finding("error", "feature width", f"{shown}, but model.video_dim is {wanted}")
    if sum(usual) == wanted and tuple(widths) != usual:
        names = " and ".join(path.name for path in paths.features)
        message = f"{names} are {shown} wide, usually {' + '.join(map(str, usual))}: are they swapped or mislabelled?"
        return Finding("error" if sorted(widths) == sorted(usual) else "warning", "feature width", message)
    return Finding("ok", "feature width", f"{shown}, as model.video_dim says")


def _consistency(config: Config, paths: Paths, lengths: Sequence[dict[str, int]]) -> Iterator[Finding]:
    """Check that the files belong together and are in the order of the preset."""
    for path, other in zip(paths.features[1:], lengths[1:], strict=False):
        shared = [vid for vid in other if vid in lengths[0]]
        apart = [vid for vid in shared if abs(other[vid] - lengths[0][vid]) > LENGTH_TOLERANCE]
        if shared and len(apart) > len(shared) // 20:
            message = f"{len(apart)} of {len(shared)} videos differ in length by more than {LENGTH_TOLERANCE} frames"
            yield Finding("error", f"{path.name} length", f"{message} from {paths.features[0].name}")
    given = [path.stem for path in paths.features]
    usual = [Path(name).stem for name in config.dataset.features]
    if given != usual and sorted(given) == sorted(usual):
        message = f"{' then '.join(given)}; the preset joins {' then '.join(usual)}"
        yield Finding("warning", "feature order", message)


def _text(config: Config, paths: Paths, queries: dict[str, tuple[Query, ...]]) -> Iterator[Finding]:
    try:
        config = with_counted_words(config, paths)
        text = build_text(config, paths, device=torch.device("cpu"))
    except MesmError as error:
        yield Finding("error", f"text ({config.text.encoder})", str(error))
        return
    yield Finding("ok", f"text ({config.text.encoder})", f"{paths.text}, {config.text.vocab_size} label words")
    labels = split_labels(queries)
    for split, listed in queries.items():
        yield _coverage(text, labels[split], listed)


def _coverage(text: TextEncoder, split: str, queries: Sequence[Query]) -> Finding:
    words = [text.words(sentence) for sentence in dict.fromkeys(query.sentence for query in queries)]
    total = sum(len(w.tokens) for w in words)
    unknown = sum(int(w.unknown.sum()) for w in words)
    level = "warning" if unknown > total // 2 else "ok"
    return Finding(
        level, f"vocabulary {split}", f"{1 - unknown / total:.1%} of {total} words are among the label words"
    )
