"""The calibration of a model: from the quantities of an answer to probabilities."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mesm_core.confidence.logistic import Logistic, fit_logistic
from mesm_core.confidence.negatives import SEED, halves, video_hash
from mesm_core.confidence.quantities import NAMES
from mesm_core.confidence.report import confidence_report
from mesm_core.confidence.samples import KINDS, REAL, RIGHT, Samples
from mesm_core.errors import CheckpointError, ConfigError, DataError
from mesm_core.types import Query

FEWEST = 30
"""Fewest real queries, and negatives of each kind, in each half."""
FIRST = 0.8
"""Weight of the first moment of an answer beside all its other moments in the fit: it is what users read first."""


NOT_CALIBRATED = "The model has no calibration, so its answers have no confidence."
HOW_TO_CALIBRATE = "Fit one: mesm calibrate CKPT, or with your own videos: mesm calibrate CKPT --on FILE."


def not_calibrated() -> ConfigError:
    """Return the error for a model without a calibration, when a confidence is requested."""
    return ConfigError(NOT_CALIBRATED, hint=f"{HOW_TO_CALIBRATE} Zero-shot cannot be calibrated.")


def check_confidence(value: float) -> float:
    """Return a minimum confidence if it is in [0, 1].

    Raises:
        ConfigError: it is another number.
    """
    if 0 <= value <= 1:
        return value
    raise ConfigError(f"The minimum confidence must be in [0, 1], not {value:g}.")


@dataclass(frozen=True)
class Confidence:
    """``answer``: P(there is an answer); ``moments`` (N,): P(IoU >= 0.5) of each moment, at most ``answer``."""

    answer: float
    moments: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """The fitted calibration of one model.

    ``answer``: P(there is an answer), from the quantities of the first moment; ``moment``: P(IoU >= 0.5, if there is an
    answer), from those of each moment; ``model``: hash of the model's weights; ``data``: what it was fitted on;
    ``seed``: of the halves and negatives; ``fitted``: number of questions of each kind; ``report``: that of the half
    that it was not fitted on, as ``confidence_report`` returns it; ``videos``: hashes of those that it was fitted on,
    None in checkpoints of earlier versions.
    """

    answer: Logistic
    moment: Logistic
    model: str
    data: str
    seed: int
    fitted: Mapping[str, int]
    report: Mapping[str, Any]
    videos: frozenset[str] | None = None

    def may_know(self, query: Query) -> bool:
        """Return whether it was fitted on the query's video or its source, or may have been if that is not recorded."""
        if self.videos is None:
            return query.group in halves([query.group], seed=self.seed)[0]
        return not self.videos.isdisjoint({video_hash(query.vid), video_hash(query.group)})

    def confidence(self, quantities: np.ndarray) -> Confidence:
        """Return the confidence of an answer from its ``answer_quantities`` (N, 6); 0 if it has no moments."""
        if not len(quantities):
            return Confidence(0.0, np.zeros(0))
        answer = float(self.answer.probabilities(quantities[:1])[0])
        return Confidence(answer, answer * self.moment.probabilities(quantities))

    def tested(self, samples: Samples) -> dict[str, Any]:
        """Return the report on answers that the calibration was not fitted on.

        Raises:
            DataError: there are too few questions of a kind.
        """
        refuse_untestable(samples.counts)
        found = [self.confidence(sample.quantities) for sample in samples.samples]
        return confidence_report(samples, np.array([c.answer for c in found]), [c.moments for c in found])

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON-able values."""
        return {
            "quantities": list(NAMES),
            "answer": [self.answer.intercept, *self.answer.slopes],
            "moment": [self.moment.intercept, *self.moment.slopes],
            "model": self.model,
            "data": self.data,
            "seed": self.seed,
            "fitted": dict(self.fitted),
            "report": dict(self.report),
            **({} if self.videos is None else {"videos": sorted(self.videos)}),
        }


def calibration_from(stored: Mapping[str, Any], *, model: str) -> Calibration | None:
    """Return the calibration that ``as_dict`` stored in a checkpoint, or None if there is none.

    Args:
        model: hash of the checkpoint's weights.

    Raises:
        CheckpointError: the calibration is malformed or belongs to another model.
    """
    if not stored:
        return None
    if stored.get("model") != model:
        raise CheckpointError(
            "The checkpoint's calibration belongs to another model: the weights have changed since it was fitted.",
            hint="Fit it again: mesm calibrate CKPT",
        )
    if stored.get("quantities") != list(NAMES):
        raise CheckpointError(
            "The checkpoint's calibration uses other quantities than this version of mesm.",
            hint="Fit it again: mesm calibrate CKPT",
        )
    answer, moment = (_logistic(stored.get(name), name) for name in ("answer", "moment"))
    fields = {"data": str, "seed": int, "fitted": dict, "report": dict}
    wrong = [name for name, kind in fields.items() if not isinstance(stored.get(name), kind)]
    if wrong:
        raise _malformed(wrong[0])
    given = {name: stored[name] for name in fields}
    return Calibration(answer, moment, model=model, videos=_videos(stored.get("videos")), **given)


def _videos(values: object) -> frozenset[str] | None:
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _malformed("videos")
    return frozenset(values)


def _logistic(values: object, name: str) -> Logistic:
    if not isinstance(values, list) or len(values) != len(NAMES) + 1:
        raise _malformed(name)
    if not all(isinstance(value, float) and math.isfinite(value) for value in values) or min(values[1:]) < 0:
        raise _malformed(name)
    return Logistic(values[0], tuple(values[1:]))


def _malformed(name: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint is damaged: the '{name}' of its calibration is not valid.",
        hint="Copy the file again, or fit the calibration again: mesm calibrate CKPT",
    )


def fit_calibration(
    fit: Samples, report: Samples, *, model: str, data: str, seed: int = SEED, videos: Collection[str] = ()
) -> Calibration:
    """Return the calibration fitted on one half of a split, with its report on the other half.

    Args:
        videos: names of those of the first half, and of their sources.

    Raises:
        DataError: a half has too few questions of a kind; the message says how many it needs.
    """
    refuse_too_few([fit.counts, report.counts])
    answer = fit_logistic(fit.first, fit.are(REAL), fit.weights)
    real = [sample for sample in fit.samples if sample.kind == REAL]
    quantities = np.concatenate([sample.quantities for sample in real])
    # Whether words are known says whether there is an answer, not where it is.
    quantities[:, NAMES.index("known")] = 1
    right = np.concatenate([sample.overlaps >= RIGHT for sample in real])
    moment = fit_logistic(quantities, right, np.concatenate([_shares(len(sample.overlaps)) for sample in real]))
    fitted = Calibration(answer, moment, model, data, seed, fit.counts, {}, frozenset(map(video_hash, videos)))
    return replace(fitted, report=fitted.tested(report))


def refuse_too_few(halves: Sequence[Mapping[str, int]]) -> None:
    """Raise DataError if a half of the videos has fewer than ``FEWEST`` questions of a kind.

    Args:
        halves: the number of questions of each kind in each half.
    """
    real = [counts[REAL] for counts in halves]
    negatives = [counts[kind] for counts in halves for kind in KINDS if kind != REAL]
    hint = "Use a larger split, or queries about your own videos: mesm calibrate CKPT --on FILE."
    if min(real) < FEWEST:
        raise DataError(
            f"A calibration needs {FEWEST} queries with an answer in each half of the videos; there are "
            f"{' and '.join(map(str, real))}.",
            hint=hint,
        )
    if min(negatives) < FEWEST:
        raise DataError(
            f"A calibration needs {FEWEST} negatives in each half of the videos; there are only {min(negatives)}. A "
            "negative is a sentence about another video that is unlike all sentences about the asked one.",
            hint=hint,
        )


def refuse_untestable(counts: Mapping[str, int]) -> None:
    """Raise DataError if there are fewer than ``FEWEST`` questions of a kind to test a calibration with."""
    if min(counts.values()) < FEWEST:
        found = ", ".join(f"{number} {kind.replace('_', '-')}" for kind, number in counts.items())
        raise DataError(
            f"A test of the confidence needs {FEWEST} queries and {FEWEST} negatives of each kind, about videos that "
            f"the calibration was not fitted on; there are {found}.",
            hint="Use a larger split.",
        )


def windows_confidence(parts: Sequence[Confidence]) -> tuple[float, list[Confidence]]:
    """Return P(there is an answer) in a video, and the confidence of each of its windows as one part of the video.

    Each window's confidence assumes that half of the questions have an answer in it, so its odds are a likelihood
    ratio. Here half of the questions have an answer in one of the windows, and each is equally likely. The windows are
    taken as independent, though neighbours overlap.

    Args:
        parts: the confidence in each window alone.

    >>> whole, each = windows_confidence([Confidence(0.9, np.array([0.6])), Confidence(0.5, np.array([0.1]))])
    >>> round(whole, 3), [(round(part.answer, 3), part.moments.round(3).tolist()) for part in each]
    (0.833, [(0.75, [0.5]), (0.083, [0.017])])
    """
    chances = np.clip([part.answer for part in parts], 0, 1 - 1e-12)
    odds = chances / (1 - chances)
    shared = odds / (len(odds) + odds.sum())
    each = [
        Confidence(chance, part.moments * (chance / part.answer) if part.answer > 0 else part.moments)
        for chance, part in zip(shared.tolist(), parts, strict=True)
    ]
    return float(shared.sum()), each


def _shares(moments: int) -> np.ndarray:
    """Return the weights (N,) of an answer's moments in the fit: ``FIRST``, and the rest divided among the others."""
    if moments == 1:
        return np.ones(1)
    return np.array([FIRST, *[(1 - FIRST) / (moments - 1)] * (moments - 1)])
