"""Words of a command line that trains a tiny model on the invented dataset."""

from __future__ import annotations

from tests.conftest import SMALL, Trained

FIXED = ["--set", *" --set ".join(SMALL).split()]
"""The settings of a tiny model."""


def train_words(trained: Trained, *more: object) -> list[object]:
    """Return the words of ``mesm train`` with these settings."""
    return ["train", "--dataset", "tacos", "--data-dir", trained.root, "--glove", trained.paths.text, *FIXED, *more]
