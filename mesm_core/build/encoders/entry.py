"""Entries of the table of text encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mesm_core.build.paths import Paths
from mesm_core.config.schema import AUTO, Config
from mesm_core.errors import TextError
from mesm_core.text.encoder import TextEncoder

Check = Callable[[], object]


@dataclass(frozen=True)
class Encoder:
    """The functions and properties of a kind of text encoder.

    ``build``: builds the encoder from files, for training; ``restore``: restores it from the state in a checkpoint,
    with the path of its file if given; ``setting``: setting of the section ``text`` with the path of its file;
    ``with_annotations``: whether that file is in the annotations' folder, rather than below the data root;
    ``locate``: returns the file that exists for a path; ``label_words``: returns the file with the counts of the label
    words, and their number; ``checks``: returns checks of its files, none of which reads a large file completely;
    ``without_counts``: builds the encoder for inference without a count file, or None if the file is needed;
    ``needs_counts``: whether it reads the count file; ``portable``: whether a checkpoint contains the whole encoder;
    ``title``, ``advice``: name of the file, and how to get it, with ``{path}``, ``{name}`` (of the file) and
    ``{dataset}``.
    """

    build: Callable[[Config, Paths, torch.device], TextEncoder]
    restore: Callable[[Config, Mapping[str, Any], torch.device, Path | None], TextEncoder]
    setting: str
    label_words: Callable[[Config, Paths], tuple[Path, int]]
    checks: Callable[[Config, Paths], Sequence[Check]]
    title: str
    advice: str
    with_annotations: bool = False
    locate: Callable[[Path], Path] = lambda path: path
    without_counts: Callable[[Config, Paths, torch.device], TextEncoder] | None = None
    needs_counts: bool = True
    portable: bool = True


def counted(config: Config, paths: Paths, count: Callable[[Config, Paths], tuple[Path, int]]) -> Config:
    """Return the config with ``text.vocab_size`` set to the number of counted words if it is ``auto``.

    Args:
        count: an encoder's ``label_words``.

    Raises:
        TextError: the count file or vocabulary is missing or empty; DataError: it is malformed.
    """
    if config.text.vocab_size != AUTO:
        return config
    source, number = count(config, paths)
    if not number:
        raise TextError(f"{source} has no words.", hint="`mesm count-tokens --overwrite` counts them again.")
    return config.with_label_words(number)
