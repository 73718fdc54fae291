"""Asks a model the questions of a calibration, and fits or tests the calibration with its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from mesm_core.build import build_decoding, build_framing, build_shortening
from mesm_core.confidence.calibration import Calibration, fit_calibration, refuse_too_few
from mesm_core.confidence.negatives import SEED, Questions, questions_of_halves
from mesm_core.confidence.quantities import answer_quantities
from mesm_core.confidence.samples import IN_DOMAIN, KINDS, OUT_OF_DOMAIN, REAL, Sample, Samples, overlaps_of
from mesm_core.config.schema import Config
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.features import FeatureStore
from mesm_core.errors import DataError
from mesm_core.inference.confident import known_share
from mesm_core.inference.evaluate import Progress, predict_split, seen_seconds
from mesm_core.model.mesm import Mesm
from mesm_core.processes import ALONE, Team
from mesm_core.text.encoder import TextEncoder
from mesm_core.types import Query


@dataclass(frozen=True)
class Examinee:
    """What answers the questions of a calibration: a model with its settings, text encoder, features and device."""

    model: Mesm
    config: Config
    text: TextEncoder
    features: FeatureStore
    device: torch.device


def calibrate(
    examinee: Examinee,
    queries: Sequence[Query],
    *,
    weights: str,
    data: str,
    seed: int = SEED,
    progress: Progress | None = None,
    team: Team = ALONE,
) -> Calibration:
    """Return the calibration of a model, fitted on half of the videos, with its report on the others.

    Args:
        queries: with windows; weights: hash of the model's weights; data: name of the queries, e.g. ``tacos val``.
        progress: called with the number of questions of each batch; ``question_count`` are asked.
        team: processes that share the work.

    Raises:
        DataError: there are too few queries, or a query has no window.
    """
    fit, report = halves_to_ask(queries, seed=seed)
    asked = [ask(examinee, half, progress=progress, team=team) for half in (fit, report)]
    videos = {name for query in fit.real for name in (query.vid, query.group)}
    return fit_calibration(*asked, model=weights, data=data, seed=seed, videos=videos)


def halves_to_ask(queries: Sequence[Query], *, seed: int = SEED) -> tuple[Questions, Questions]:
    """Return the questions of both halves, after checking that there are enough of them.

    Raises:
        DataError: there are too few queries, or a query has no window.
    """
    halves = halves_of(queries, seed=seed)
    refuse_too_few([question_counts([half]) for half in halves])
    return halves


def halves_of(queries: Sequence[Query], *, seed: int = SEED) -> tuple[Questions, Questions]:
    """Return the questions of both halves, however few.

    Raises:
        DataError: a query has no window.
    """
    without = [query for query in queries if not query.windows]
    if without:
        raise DataError(
            f"{len(without)} of {len(queries)} queries have no window, so it is not known whether answers are right. "
            f"The first of them is '{without[0].sentence[:60]}' about {without[0].vid}.",
            hint="Add its relevant_windows, which must begin before the video ends, or use a split with ground truth.",
        )
    return questions_of_halves(queries, seed=seed)


def question_counts(halves: Iterable[Questions]) -> Counter[str]:
    """Return the number of questions of each kind."""
    counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    for half in halves:
        counts.update({kind: len(part) for kind, part in _by_kind(half)})
    return counts


def question_count(halves: Iterable[Questions]) -> int:
    """Return the number of questions, real and negative."""
    return question_counts(halves).total()


def ask(examinee: Examinee, questions: Questions, *, progress: Progress | None = None, team: Team = ALONE) -> Samples:
    """Return the answers to questions, each asked on its own, so that real queries and negatives compare fairly."""
    kinds = [kind for kind, part in _by_kind(questions) for _ in part]
    queries = [query for _, part in _by_kind(questions) for query in part]
    config, text = examinee.config, examinee.text
    text.prepare(query.sentence for query in queries)
    dataset = MomentDataset(
        queries, text=text, features=examinee.features, framing=build_framing(config), max_gather_size=1
    )
    shortening = build_shortening(config)
    predictions = predict_split(
        examinee.model,
        dataset,
        batch_size=config.eval.batch_size,
        device=examinee.device,
        decoding=build_decoding(config, whole=True),
        shortening=shortening,
        progress=progress,
        team=team,
    )
    seconds = seen_seconds(dataset, queries, shortening)
    return Samples(
        [
            Sample(
                kind,
                answer_quantities(
                    prediction.windows,
                    prediction.saliency,
                    start=0.0,
                    seconds=seen,
                    known=known_share(text, query.sentence),
                ),
                overlaps_of(prediction.windows, query.windows),
            )
            for kind, query, prediction, seen in zip(kinds, queries, predictions, seconds, strict=True)
        ]
    )


def _by_kind(questions: Questions) -> list[tuple[str, tuple[Query, ...]]]:
    return [
        (REAL, questions.real),
        (IN_DOMAIN, questions.in_domain),
        (OUT_OF_DOMAIN, questions.out_of_domain),
    ]
