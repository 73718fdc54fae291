"""Training: a generator of steps, and a run around it that evaluates, records and saves."""
