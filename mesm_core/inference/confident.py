"""The confidence of predictions, from a model's calibration."""

from __future__ import annotations

from mesm_core.confidence.calibration import Calibration, Confidence
from mesm_core.confidence.quantities import answer_quantities
from mesm_core.errors import ConfigError
from mesm_core.text.encoder import TextEncoder
from mesm_core.types import Prediction

NOT_CALIBRATED = "the model has no calibration, so its answers have no confidence"
HOW_TO_CALIBRATE = "Fit one: mesm calibrate CKPT, or mesm calibrate CKPT --on FILE for your own videos."


def check_confidence(value: float) -> float:
    """Return a least confidence if it is in [0, 1].

    Raises:
        ConfigError: it is another number.
    """
    if 0 <= value <= 1:
        return value
    raise ConfigError(f"min-confidence is a probability in [0, 1], not {value:g}.")


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
