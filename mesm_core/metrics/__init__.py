"""How answers are scored: NumPy only, pure functions (docs/evaluation.md)."""
