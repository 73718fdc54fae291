"""The settings and paths of a run: a new one, one that starts from a checkpoint, or an earlier one to resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesm_core.build import Paths, data_paths
from mesm_core.build.encoders import find_encoder
from mesm_core.build.paths import GivenPaths
from mesm_core.checkpoint import Checkpoint
from mesm_core.config.load import DATA_ROOT, Layer, flatten, load_config, resolve, set_layer
from mesm_core.config.paths import absolute, below
from mesm_core.config.schema import Config
from mesm_core.errors import ConfigError
from mesm_core.inference.scoring import checkpoint_paths
from mesm_core.training.directory import LAST, load_last
from mesm_core.training.record import config_differences

# Settings that may change when a run is resumed: they affect its length and its records, not its results.
FREE = ("train.epochs", "train.patience", "train.eval_every", "train.save_minutes", "train.keep", "train.loggers",
        "model.fast", "eval.batch_size", "data.cache_gb", "data.readers")  # fmt: skip


@dataclass(frozen=True)
class Given:
    """Paths from the command line; None or empty if not given."""

    root: Path | None = None
    annotations: Path | None = None
    features: Sequence[Path] = ()
    text: Path | None = None
    videos: Path | None = None
    backbones: Sequence[str] = ()

    def as_options(self) -> dict[str, Any]:
        """Return the settings that determine others: the paths of videos and annotations, and the backbones."""
        dataset: dict[str, Any] = {}
        if self.annotations:
            dataset["annotations"] = below(self.root or DATA_ROOT, self.annotations)
        if self.videos:
            dataset["videos"] = absolute(self.videos)
        if self.backbones:
            dataset["backbones"] = list(self.backbones)
        return {"dataset": dataset} if dataset else {}

    def as_arguments(self) -> GivenPaths:
        """Return the paths, without the root, as keyword arguments."""
        return {"annotations": self.annotations, "features": self.features, "text": self.text}

    def settings(self, encoder: str) -> dict[str, Any]:
        """Return the given paths as settings: relative to the data folder if they lie in it, else absolute.

        Args:
            encoder: name of the text encoder; it determines the setting that holds the path of its file.
        """
        root = self.root or DATA_ROOT
        tree: dict[str, dict[str, Any]] = {"dataset": {}, "text": {}}
        if self.annotations:
            tree["dataset"]["annotations"] = below(root, self.annotations)
        if self.videos:
            tree["dataset"]["videos"] = absolute(self.videos)
        if self.features:
            tree["dataset"]["features"] = [below(root, path) for path in self.features]
        if self.text:
            entry = find_encoder(encoder)
            # A relative path would be resolved against the folder of annotations.
            path = absolute(self.text) if entry.with_annotations else below(root, self.text)
            tree["text"][entry.setting] = path
        return tree


def new_run(
    dataset: str | None, file: Path | None, overrides: Sequence[str], given: Given, *, init: Checkpoint | None
) -> tuple[Config, Paths]:
    """Return the settings and paths of a new run.

    With ``init``, and neither a dataset nor a file, they are those of the checkpoint, with the overrides applied. The
    settings contain the given paths.

    Raises:
        ConfigError: the settings are incomplete or invalid.
    """
    if init is None or dataset or file:
        config = load_config(dataset, file=file, overrides=overrides, options=given.as_options())
        return _remembering(config, given), data_paths(config, given.root or DATA_ROOT, **given.as_arguments())
    config = resolve([Layer("--init", init.config), set_layer(overrides)])
    moved = _changed(init.config, config)
    arguments = _from_config(config, given, moved)
    return _remembering(config, given), checkpoint_paths(init, config, given.root, **arguments)


def earlier_run(
    folder: Path, dataset: str | None, file: Path | None, overrides: Sequence[str], given: Given, *, force: bool
) -> tuple[Path, Config, Paths]:
    """Return the folder, settings and paths of an earlier run, with the given changes applied.

    Args:
        folder: the run's folder, or its last.pt; dataset, file: settings to use in place of the run's.
        force: accept settings that change the results.

    Raises:
        CheckpointError: the folder holds no checkpoint.
        ConfigError: settings that change the results differ, and ``force`` is off.
    """
    folder = folder.parent if folder.name == LAST else folder
    checkpoint, _ = load_last(folder)
    if dataset or file:
        config = load_config(dataset, file=file, overrides=overrides, options=given.as_options())
    else:
        config = resolve([Layer(str(folder / LAST), checkpoint.config), set_layer(overrides)])
    config = _remembering(config, given).with_label_words(checkpoint.config["text"]["vocab_size"])
    free = {*FREE, *(key for key, _ in flatten(given.settings(config.text.encoder)))}
    # A checkpoint of an earlier version lacks newer settings; it was trained with their defaults.
    before = resolve([Layer(str(folder / LAST), checkpoint.config)]).model_dump(mode="json")
    changed = config_differences(before, config.model_dump(mode="json"))
    refused = [f"  {key}: {was} in the run, {now} now" for key, was, now in changed if key not in free]
    if refused and not force:
        raise ConfigError(
            f"{folder} was trained with other settings:\n" + "\n".join(refused),
            hint="Leave the settings out to continue with the old ones; --force continues with the new ones.",
        )
    arguments = _from_config(config, given, {key for key, _, _ in changed})
    return folder, config, checkpoint_paths(checkpoint, config, None, **arguments)


def _remembering(config: Config, given: Given) -> Config:
    """Return the config with the given paths as settings."""
    return resolve([Layer("", config.model_dump()), Layer("command line", given.settings(config.text.encoder))])


def _changed(before: dict[str, Any], config: Config) -> set[str]:
    return {key for key, _, _ in config_differences(before, config.model_dump(mode="json"))}


def _from_config(config: Config, given: Given, changed: set[str]) -> GivenPaths:
    """Return paths as keyword arguments: the given ones, and those of settings that the checkpoint does not share."""
    now = data_paths(config, given.root or DATA_ROOT, **given.as_arguments())
    text = f"text.{find_encoder(config.text.encoder).setting}"
    return {
        "annotations": now.annotations if "dataset.annotations" in changed else given.annotations,
        "features": now.features if "dataset.features" in changed else given.features,
        "text": now.text if text in changed else given.text,
    }
