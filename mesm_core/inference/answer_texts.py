"""The confidence of answers as text, for pages, files and the terminal. Imports no torch."""

from __future__ import annotations

from mesm_core.inference.answers import Answer, Moment


def certainty(moment: Moment) -> str:
    """Return the score of a moment and, if the model is calibrated, its confidence.

    >>> certainty(Moment(1.0, 2.0, 0.914, 0.706)), certainty(Moment(1.0, 2.0, 0.914))
    ('score 0.91, confidence 71%', 'score 0.91')
    """
    sure = "" if moment.confidence is None else f", confidence {moment.confidence:.0%}"
    return f"score {moment.score:.2f}{sure}"


def confidence_texts(answer: Answer) -> list[str]:
    """Return sentences about the confidence of an answer: that there is one, and whether all moments were dropped."""
    if answer.confidence is None:
        return []
    texts = [f"Confidence that the video has an answer: {answer.confidence:.0%}."]
    if answer.rejected is not None:
        best = answer.rejected
        texts.append(
            f"No confident answer: the surest moment, {best.start:.1f} to {best.end:.1f} s, has a confidence of "
            f"{best.confidence:.0%}."
        )
    return texts
