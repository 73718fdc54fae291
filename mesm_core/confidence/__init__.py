"""Calibrated confidence of answers: negatives, quantities of an answer, the fitted calibration and its report."""
