"""The table of text encoders: one line each."""

from __future__ import annotations

from mesm_core.build.encoders import clip, glove, vocabulary
from mesm_core.build.encoders.entry import Encoder
from mesm_core.errors import ConfigError, did_you_mean, listing

ENCODERS: dict[str, Encoder] = {
    "glove": glove.ENCODER,
    "glove-pkl": vocabulary.ENCODER,
    "clip": clip.ENCODER,
}


def find_encoder(name: str) -> Encoder:
    """Return a text encoder's line of the table.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in ENCODERS:
        raise ConfigError(
            f"text.encoder: no text encoder is called '{name}'.{did_you_mean(name, ENCODERS)}",
            hint=f"Known: {listing(ENCODERS)}.",
        )
    return ENCODERS[name]
