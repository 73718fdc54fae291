"""Finds moments in video files: extracts features, with a cache, and answers queries with a retriever.

Imports no torch, since zero-shot does not need it if features and sentences are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from mesm_core.backbones.protocol import Precision
from mesm_core.backbones.weights import Weights, find_weights, known_weights
from mesm_core.caches import default_notes, identity_of
from mesm_core.confidence.calibration import not_calibrated
from mesm_core.config.backbones import BACKBONES
from mesm_core.config.load import DATA_ROOT
from mesm_core.errors import ConfigError, DataError
from mesm_core.extraction.cache import FeatureCache, default_cache
from mesm_core.extraction.cached import CachedExtraction, Featured
from mesm_core.extraction.pipeline import Failed, Frames
from mesm_core.extraction.recipe import CLIP, USUAL_CLIP_LEN, Recipe, recipe_of
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.weights import refuse_unused, weights_of
from mesm_core.inference.answers import Answer, VideoQueries, refuse_invalid_queries
from mesm_core.inference.retriever import Retriever
from mesm_core.inference.windows import AUTO, Window, check_window
from mesm_core.inference.zero_shot_retriever import UNTRAINED, ZERO_SHOT, ZeroShotRetriever
from mesm_core.metrics.nms import PEOPLE_NMS, check_nms
from mesm_core.text.cache import TextCache, default_cache_path
from mesm_core.text.encoder import refuse_empty
from mesm_core.text.kept_sentences import KeptSentences

if TYPE_CHECKING:
    from mesm_core.checkpoint import Checkpoint
    from mesm_core.text.clip_joint import ClipSentences


@dataclass(frozen=True, slots=True)
class Located:
    """The answers about a video.

    ``video``: the file; ``duration``: seconds of the decodable frames; ``answers``: one per query, in order;
    ``warnings``: about the file, such as how much of a damaged file was recovered; ``cached``: True if the features
    came from the cache and nothing was decoded.
    """

    video: Path
    duration: float
    answers: tuple[Answer, ...]
    warnings: tuple[str, ...] = ()
    cached: bool = False

    def confident(self, least: float) -> Located:
        """Return the answers with the moments that have at least a confidence, as ``Answer.confident``."""
        return replace(self, answers=tuple(answer.confident(least) for answer in self.answers))


def ranked_videos(found: Sequence[Located]) -> dict[str, list[tuple[Path, float]]]:
    """Return, for each query, the videos with the confidence that they have an answer, highest first.

    Answers of a model without calibration are left out.
    """
    by_query: dict[str, dict[Path, float]] = {}
    for located in found:
        for answer in located.answers:
            if answer.confidence is not None:
                by_query.setdefault(answer.query, {})[located.video] = answer.confidence
    return {query: sorted(videos.items(), key=lambda item: -item[1]) for query, videos in by_query.items()}


@dataclass(frozen=True)
class Plan:
    """The files and settings that answering needs, known before anything large is read.

    ``model``: path of a checkpoint, None for zero-shot; ``recipe``: how features are extracted; ``weights``: names of
    the required weight files in the table of ``mesm weights``; ``clip``: the text encoder's file of a checkpoint, None
    if it needs none or reads ``clip-b32``; ``root``: the data folder; ``given``: weight files by name.
    """

    model: Path | None
    checkpoint: Checkpoint | None
    recipe: Recipe
    weights: tuple[str, ...]
    clip: Path | None
    root: Path | None
    given: Mapping[str, Path]

    @property
    def inputs(self) -> list[Path]:
        """The files that are read: the checkpoint, and the weights that are given by name."""
        return [path for path in (self.model, self.clip, *self.given.values()) if path is not None]

    def require_calibration(self) -> None:
        """Raise ConfigError if answers will have no confidence."""
        if self.checkpoint is None or not self.checkpoint.calibration:
            raise not_calibrated()

    @property
    def missing(self) -> list[Weights]:
        """The weight files that were not found."""
        names = [name for name in self.weights if name not in self.given]
        return [known_weights(name) for name in names if find_weights(name, root=self.root or DATA_ROOT) is None]


def plan_location(
    model: Path | str | None = None,
    *,
    weights: Mapping[str, Path] | None = None,
    clip: Path | None = None,
    clip_len: Fraction | None = None,
    root: Path | None = None,
) -> Plan:
    """Return the plan for answering with a model; arguments and errors are those of ``Locator.load``."""
    given = dict(weights or {})
    if model is None or str(model) == ZERO_SHOT:
        refuse_unused(given, [CLIP])
        recipe = Recipe(clip_len=clip_len or USUAL_CLIP_LEN)
        return Plan(None, None, recipe, (CLIP,), None, root, given)
    from mesm_core.inference.trained import settings_of, text_file
    from mesm_core.official.checkpoint import load_any_checkpoint

    path = Path(model)
    checkpoint = load_any_checkpoint(path)
    recipe = recipe_of(settings_of(checkpoint), checkpoint.data_statistics, source=str(path))
    if clip_len is not None and clip_len != recipe.clip_len:
        raise ConfigError(
            f"{path} was trained on rows of {float(recipe.clip_len):g} s, not of {float(clip_len):g} s.",
            hint="Leave out --clip-len; the model determines it.",
        )
    text, from_archive = text_file(checkpoint, clip, root)
    needed = [name for name in recipe.backbones if BACKBONES[name].weights]
    names = tuple(dict.fromkeys([*needed, *([CLIP] if from_archive else [])]))
    refuse_unused(given, names)
    return Plan(path, checkpoint, recipe, names, text, root, given)


class Locator:
    """Answers queries about video files with one model; features and encoded sentences are cached.

    Args:
        retriever: answers queries about features; extraction: extracts a video's features; plan: its origin.
        warnings: warnings about the model, for the user.
    """

    def __init__(
        self, retriever: Retriever, extraction: CachedExtraction, plan: Plan, *, warnings: Sequence[str] = ()
    ) -> None:
        self.retriever = retriever
        self.extraction = extraction
        self.plan = plan
        self.warnings = tuple(warnings)

    @classmethod
    def load(
        cls,
        model: Path | str | None = None,
        *,
        weights: Mapping[str, Path] | None = None,
        clip: Path | None = None,
        clip_len: Fraction | None = None,
        root: Path | None = None,
        device: str = "auto",
        precision: Precision | None = None,
        cache: FeatureCache | None = None,
    ) -> Locator:
        """Return a locator; backbone networks are built when they are first needed.

        Args:
            model: path of a checkpoint of mesm or a published one, which determines the backbones and the seconds per
                row; None for zero-shot, which is CLIP without training.
            weights: files by name, e.g. ``{"clip-b32": Path("ViT-B-32.pt")}``; default: those that ``mesm weights``
                downloaded, or in the data folder ``root``, by default ./data. Nothing is downloaded.
            clip: the text weights of a checkpoint with CLIP text, if they were moved after training.
            clip_len: seconds per row of features, for zero-shot (default 1); a checkpoint determines its own.
            device: auto, cpu, cuda or cuda:N; precision: of the backbones, fp32, fp16 or bf16; default fp16 on CUDA,
                fp32 on the CPU.
            cache: cache of features; default: the one in ``$MESM_CACHE``.

        Raises:
            FeatureError: weights are missing or differ from those of training, or the checkpoint's features cannot be
                extracted; CheckpointError: the file is not a checkpoint; TextError: the text encoder cannot be used;
                DeviceError: the device is not available.
        """
        plan = plan_location(model, weights=weights, clip=clip, clip_len=clip_len, root=root)
        return cls.from_plan(plan, device=device, precision=precision, cache=cache)

    @classmethod
    def from_plan(
        cls, plan: Plan, *, device: str = "auto", precision: Precision | None = None, cache: FeatureCache | None = None
    ) -> Locator:
        """Return the locator of a plan; arguments and errors are those of ``load``."""
        extraction, files = plan_extraction(plan, device=device, precision=precision, cache=cache)
        notes = [BACKBONES[name].note for name in dict.fromkeys(plan.recipe.backbones) if BACKBONES[name].note]
        if plan.checkpoint is None:
            archive = files[CLIP]
            assert archive is not None
            return cls(zero_shot(archive, device), extraction, plan, warnings=(UNTRAINED,))
        from mesm_core.inference.trained import load_trained

        extraction.check_weights()
        text = plan.clip or files.get(CLIP)
        retriever = load_trained(plan.checkpoint, text, plan.root, device=device)
        return cls(retriever, extraction, plan, warnings=(*plan.checkpoint.warnings, *notes))

    def locate_many(
        self,
        asked: Mapping[Path, Sequence[str]],
        *,
        nms: float = PEOPLE_NMS,
        window: Window = AUTO,
        independent: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Located | Failed]:
        """Yield the result for each video, in order; a video that cannot be read does not stop the others.

        Args:
            asked: the queries about each video file.
            nms, window, independent: as for ``MomentRetriever.locate``.
            progress: called with the number of frames that were decoded.

        Raises:
            TextError: a query is empty or too long, or there is none; ConfigError: ``nms`` or ``window`` is
                invalid; FeatureError: a backbone's weights cannot be used.
        """
        check_nms(nms)
        window = check_window(window)
        for queries in asked.values():
            refuse_queries(queries)
        videos = [VideoFile(path.stem, path) for path in asked]
        for event in self.extraction.run(videos):
            if isinstance(event, Frames):
                if progress is not None:
                    progress(event.count)
            elif isinstance(event, Failed):
                yield event
            else:
                yield self.answer(event, asked[event.video.path], nms=nms, window=window, independent=independent)

    def answer(
        self,
        video: Featured,
        queries: Sequence[str],
        *,
        nms: float = PEOPLE_NMS,
        window: Window = AUTO,
        independent: bool = False,
    ) -> Located:
        """Return the answers to queries about a video with known features; arguments as for ``locate_many``."""
        answers = self.retriever.locate(
            list(video.features),
            queries,
            duration=video.duration,
            independent=independent,
            nms=nms,
            window=window,
        )
        uncached = f"its features could not be cached: {video.cache_error}" if video.cache_error else ""
        warnings = tuple(text for text in (video.warning, uncached) if text)
        return Located(video.video.path, video.duration, tuple(answers), warnings, video.cached)


def plan_extraction(
    plan: Plan, *, device: str = "auto", precision: Precision | None = None, cache: FeatureCache | None = None
) -> tuple[CachedExtraction, dict[str, Path | None]]:
    """Return the extraction of a plan, and its weight files by name; arguments and errors as for ``Locator.load``."""
    if device not in ("auto", "cpu"):  # always available; checking others needs torch
        from mesm_core.build import build_device

        build_device(device)
    files = {name: weights_of(name, plan.given, root=plan.root) for name in (*plan.recipe.backbones, *plan.weights)}
    extraction = CachedExtraction(
        plan.recipe,
        weights=files,
        device=device,
        precision=precision,
        cache=cache or default_cache(),
        notes=default_notes(),
    )
    return extraction, files


def locate(
    video: Path | str,
    queries: str | Sequence[str],
    model: Path | str | None = None,
    *,
    weights: Mapping[str, Path] | None = None,
    clip: Path | None = None,
    clip_len: Fraction | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    nms: float = PEOPLE_NMS,
    window: Window = AUTO,
) -> Located:
    """Return the moments of a video file that match sentences.

    The features of the video are cached in ``$MESM_CACHE``, so that further queries about it need no decoding. For
    several videos, make a ``Locator`` and call ``locate_many``.

    Args:
        video: path of a video file; queries: a sentence or several.
        model: path of a checkpoint; None for zero-shot, which is CLIP without training.
        weights, clip, clip_len, device, precision: as for ``Locator.load``.
        nms, window: as for ``MomentRetriever.locate``.

    Returns:
        One answer per query, in order; the moments are in seconds, best first.

    Raises:
        DataError: the video cannot be read; TextError: a query is empty; also those of ``Locator.load``.
    """
    asked = [queries] if isinstance(queries, str) else list(queries)
    refuse_queries(asked)
    locator = Locator.load(model, weights=weights, clip=clip, clip_len=clip_len, device=device, precision=precision)
    (found,) = locator.locate_many({Path(video): asked}, nms=nms, window=window)
    if isinstance(found, Failed):
        raise DataError(found.reason)
    return found


def refuse_queries(queries: Sequence[str]) -> None:
    """Check queries before a video is decoded for them.

    Raises:
        TextError: a query is empty or too long, or there is none.
    """
    refuse_invalid_queries(VideoQueries([], queries, 1.0))
    for query in queries:
        refuse_empty(query)


def zero_shot(archive: Path, device: str) -> ZeroShotRetriever:
    """Return the zero-shot retriever; its text tower is built only for sentences that are not in the cache.

    Args:
        archive: a whole CLIP model.
    """
    notes, what = default_notes(), "weights of the joint text encoder"
    noted, seen = notes.get(archive, what), identity_of(archive)
    known = (str(noted[0]), int(noted[1])) if _is_hash_and_width(noted) else None

    def build() -> ClipSentences:
        from mesm_core.build import build_device, build_sentences

        encoder = build_sentences(archive, device=build_device(device))
        if known is None:
            notes.put(archive, what, [encoder.weights_hash, encoder.width], seen=seen)
        return encoder

    return ZeroShotRetriever(KeptSentences(build, cache=TextCache(default_cache_path()), known=known))


def _is_hash_and_width(noted: object) -> bool:
    return isinstance(noted, list) and len(noted) == 2 and isinstance(noted[0], str) and type(noted[1]) is int
