"""The table of text encoders, with one line for each."""

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
    """Return the entry of a text encoder.

    Raises:
        ConfigError: there is no encoder with that name.
    """
    if name not in ENCODERS:
        raise ConfigError(
            f"text.encoder: no text encoder is called '{name}'.{did_you_mean(name, ENCODERS)}",
            hint=f"Known: {listing(ENCODERS)}.",
        )
    return ENCODERS[name]
