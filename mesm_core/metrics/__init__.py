"""Evaluation metrics: pure functions on NumPy arrays (docs/evaluation.md)."""
