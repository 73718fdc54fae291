"""The confidence of predictions, from a model's calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mesm_core.checkpoint import Checkpoint, weights_hash
from mesm_core.confidence.calibration import Calibration, Confidence, calibration_from
from mesm_core.confidence.quantities import answer_quantities
from mesm_core.text.encoder import TextEncoder
from mesm_core.types import Prediction


def stored_calibration(checkpoint: Checkpoint) -> Calibration | None:
    """Return the calibration of a checkpoint, or None if it has none.

    Raises:
        CheckpointError: the calibration is damaged or belongs to another model.
    """
    if not checkpoint.calibration:
        return None
    return calibration_from(checkpoint.calibration, model=weights_hash(checkpoint.model))


def known_share(text: TextEncoder, sentence: str) -> float:
    """Return the share of a sentence's words that the text encoder has a vector for; 1 if it knows all words."""
    known = text.known_words(sentence)
    return sum(known.values()) / len(known) if known else 1.0


def confidence_of(
    calibration: Calibration, prediction: Prediction, *, start: float, seconds: float, known: float
) -> Confidence:
    """Return the confidence of a prediction with the moments of all slots; arguments as for ``answer_quantities``."""
    quantities = answer_quantities(prediction.windows, prediction.saliency, start=start, seconds=seconds, known=known)
    return calibration.confidence(quantities)


def with_confidence(
    calibration: Calibration | None,
    predictions: Sequence[Prediction],
    seconds: Sequence[float],
    text: TextEncoder,
) -> list[Prediction]:
    """Return predictions with the confidence of their first moment; unchanged without a calibration.

    Args:
        predictions: about whole videos, with the moments of all slots; those that have a confidence keep it.
        seconds: that the frames of each video cover.
    """
    if calibration is None:
        return list(predictions)
    found = []
    for prediction, seen in zip(predictions, seconds, strict=True):
        sure = prediction.confidence
        if sure is None:
            known = known_share(text, prediction.query)
            moments = confidence_of(calibration, prediction, start=0.0, seconds=seen, known=known).moments
            sure = float(moments[0]) if len(moments) else 0.0
        found.append(replace(prediction, confidence=sure))
    return found
