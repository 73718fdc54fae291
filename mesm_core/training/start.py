"""What a run starts with: its settings and paths, new, from a checkpoint, or as an earlier session left them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesm_core.build import Paths, data_paths
from mesm_core.config.load import DATA_ROOT, Layer, load_config, resolve, set_layer
from mesm_core.config.schema import Config
from mesm_core.errors import ConfigError
from mesm_core.inference.scoring import checkpoint_paths
from mesm_core.training.checkpoint import Checkpoint
from mesm_core.training.directory import LAST, load_last
from mesm_core.training.record import config_differences

# What may change on the way: how long a run goes on and what it keeps, not what it computes.
FREE = ("train.epochs", "train.patience", "train.eval_every", "train.save_minutes", "train.keep", "train.loggers",
        "eval.batch_size", "data.cache_gb")  # fmt: skip


@dataclass(frozen=True)
class Given:
    """Paths from the command line; None or empty for what is not given."""

    root: Path | None = None
    annotations: Path | None = None
    features: Sequence[Path] = ()
    text: Path | None = None

    def as_arguments(self) -> dict[str, Any]:
        """Return the paths but the root, as keyword arguments."""
        return {"annotations": self.annotations, "features": self.features, "text": self.text}


def new_run(
    dataset: str | None, file: Path | None, overrides: Sequence[str], given: Given, *, init: Checkpoint | None
) -> tuple[Config, Paths]:
    """Return a new run's settings and paths: those of the checkpoint it starts from, where no dataset or file is named.

    Raises:
        ConfigError: the settings are incomplete or wrong.
    """
    if init is None or dataset or file:
        config = load_config(dataset, file=file, overrides=overrides)
        return config, data_paths(config, given.root or DATA_ROOT, **given.as_arguments())
    config = resolve([Layer("--init", init.config), set_layer(overrides)])
    return config, checkpoint_paths(init, config, given.root, **given.as_arguments())


def earlier_run(
    folder: Path, dataset: str | None, file: Path | None, overrides: Sequence[str], given: Given, *, force: bool
) -> tuple[Path, Config, Paths]:
    """Return an earlier run's folder, settings and paths, with changes on top.

    Args:
        folder: the run's, or its last.pt; dataset, file: other settings to go on with.
        force: go on although they differ in what is computed.

    Raises:
        CheckpointError: nothing was saved there; ConfigError: the settings differ and ``force`` is off.
    """
    folder = folder.parent if folder.name == LAST else folder
    checkpoint, _ = load_last(folder)
    if dataset or file:
        config = load_config(dataset, file=file, overrides=overrides)
    else:
        config = resolve([Layer(str(folder / LAST), checkpoint.config), set_layer(overrides)])
    changed = config_differences(checkpoint.config, config.model_dump(mode="json"))
    refused = [f"  {key}: {was} in the run, {now} now" for key, was, now in changed if key not in FREE]
    if refused and not force:
        raise ConfigError(
            f"{folder} was trained with other settings:\n" + "\n".join(refused),
            hint="Leave the settings out to go on as it began; --force goes on with the new ones.",
        )
    recorded = checkpoint.paths
    paths = Paths(
        annotations=given.annotations or Path(recorded["annotations"]),
        features=tuple(given.features) or tuple(map(Path, recorded["features"])),
        text=given.text or Path(recorded["text"]),
    )
    return folder, config, paths
