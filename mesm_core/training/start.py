"""The settings and paths of a run: a new one, one that starts from a checkpoint, or an earlier one to resume."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesm_core.build import Paths, data_paths
from mesm_core.build.encoders import find_encoder
from mesm_core.build.paths import GivenPaths
from mesm_core.checkpoint import Checkpoint
from mesm_core.config.load import DATA_ROOT, Layer, flatten, load_config, resolve, set_layer
from mesm_core.config.paths import absolute, below
from mesm_core.config.schema import AUTO, Config
from mesm_core.errors import ConfigError
from mesm_core.inference.scoring import recorded_paths
from mesm_core.training.directory import LAST, load_last
from mesm_core.training.record import config_differences

# Settings that may change when a run is resumed: they affect its length and its records, not its results.
FREE = ("train.epochs", "train.patience", "train.eval_every", "train.save_minutes", "train.keep", "train.loggers",
        "model.fast", "eval.batch_size", "data.cache_gb", "data.device_cache_gb", "data.readers")  # fmt: skip


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
    before = Recorded(Path("--init"), init.config, init.paths)
    moved = {key for key, _, _ in _changed(before, config)}
    return _remembering(config, given), _moved_paths(before, config, given, moved, root=given.root)


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
    before = Recorded(folder, checkpoint.config, checkpoint.paths)
    config, paths = continued(before, dataset, file, overrides, given, force=force)
    return folder, config, paths


@dataclass(frozen=True)
class Recorded:
    """The settings and paths that a run or a family of runs in ``folder`` has recorded."""

    folder: Path
    config: Mapping[str, Any]
    paths: Mapping[str, Any]

    @property
    def settings(self) -> Layer:
        """The settings as a layer."""
        return Layer(str(self.folder), dict(self.config))


def continued(
    before: Recorded,
    dataset: str | None,
    file: Path | None,
    overrides: Sequence[str],
    given: Given,
    *,
    force: bool,
) -> tuple[Config, Paths]:
    """Return recorded settings and paths with the given changes; arguments and errors are those of ``earlier_run``."""
    if dataset or file:
        config = load_config(dataset, file=file, overrides=overrides, options=given.as_options())
    else:
        config = resolve([before.settings, set_layer(overrides)])
    words = before.config["text"]["vocab_size"]
    config = _remembering(config, given)
    config = config if words == AUTO else config.with_label_words(words)
    free = {*FREE, *(key for key, _ in flatten(given.settings(config.text.encoder)))}
    changed = _changed(before, config)
    refused = [f"  {key}: {was} in the run, {now} now" for key, was, now in changed if key not in free]
    if refused and not force:
        raise ConfigError(
            f"{before.folder} was trained with other settings:\n" + "\n".join(refused),
            hint="Leave the settings out to continue with the old ones; --force continues with the new ones.",
        )
    return config, _moved_paths(before, config, given, {key for key, _, _ in changed}, root=None)


def repeated(
    before: Recorded, overrides: Sequence[str], given: Given
) -> tuple[Config, Paths, list[tuple[str, Any, Any]]]:
    """Return recorded settings and paths for a new run, with the given changes, and (key, before, now) of each change.

    Raises:
        ConfigError: a setting is invalid.
    """
    config = _remembering(resolve([before.settings, set_layer(overrides)]), given)
    changed = _changed(before, config)
    paths = _moved_paths(before, config, given, {key for key, _, _ in changed}, root=given.root)
    return config, paths, changed


def _remembering(config: Config, given: Given) -> Config:
    """Return the config with the given paths as settings."""
    return resolve([Layer("", config.model_dump()), Layer("command line", given.settings(config.text.encoder))])


def _changed(before: Recorded, config: Config) -> list[tuple[str, Any, Any]]:
    # Records of an earlier version lack newer settings; the run was trained with their defaults.
    return config_differences(resolve([before.settings]).model_dump(mode="json"), config.model_dump(mode="json"))


def _moved_paths(
    before: Recorded, config: Config, given: Given, changed: Container[str], *, root: Path | None
) -> Paths:
    """Return the given paths, those of settings that have changed, else those in ``root``, else the recorded ones."""
    now = data_paths(config, given.root or DATA_ROOT, **given.as_arguments())
    text = f"text.{find_encoder(config.text.encoder).setting}"
    arguments: GivenPaths = {
        "annotations": now.annotations if "dataset.annotations" in changed else given.annotations,
        "features": now.features if "dataset.features" in changed else given.features,
        "text": now.text if text in changed else given.text,
    }
    return recorded_paths(before.paths, config, root, **arguments)
