"""What the table of text encoders holds of each."""

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
    """A text encoder, by what is done with it.

    ``build``: returns it from files, for training; ``restore``: from the state in a checkpoint, with the path of its
    file where that is given; ``setting``: in the section ``text``, names its file; ``with_annotations``: that file lies
    in the annotations' folder, else below the data root; ``locate``: returns the file that is there for a path;
    ``label_words``: returns the file that counts the label words, and their number; ``checks``: returns checks of its
    files, none of which reads a large file to its end; ``without_counts``: returns it where the count file is missing
    and only questions are asked, or None where it needs that file; ``needs_counts``: whether it reads the count file;
    ``portable``: whether a checkpoint holds all of it; ``title``, ``advice``: what the file is called, and how to get
    it, with ``{path}``, ``{name}`` (of the file) and ``{dataset}``.
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
    """Return the config with the number of words that were counted in place of a ``text.vocab_size`` of ``auto``.

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
