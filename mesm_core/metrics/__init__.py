"""How answers are scored: NumPy only, pure functions (evaluation.md)."""
