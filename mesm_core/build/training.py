"""Settings -> the parts of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mesm_core.build.data import build_features, build_split, check_select
from mesm_core.build.model import build_criterion, build_model, load_matching
from mesm_core.build.paths import Paths
from mesm_core.build.text import build_text, with_counted_words
from mesm_core.config.schema import Config
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.features import FeatureStore
from mesm_core.data.statistics import data_statistics
from mesm_core.errors import DataError
from mesm_core.losses.criterion import Criterion
from mesm_core.model.mesm import Mesm
from mesm_core.text.encoder import TextEncoder


@dataclass(frozen=True)
class TrainingParts:
    """The parts of a training run.

    ``config``: settings, with the number of label words; ``eval_data``: the splits that select the best checkpoint;
    ``data_statistics``: statistics of the training data; ``skipped``: videos without features; ``repairs``: number of
    repaired annotations, by split and kind; ``fresh``: names of weights that the initial checkpoint does not have.
    """

    config: Config
    paths: Paths
    text: TextEncoder
    train_data: MomentDataset
    eval_data: Mapping[str, MomentDataset]
    model: Mesm
    criterion: Criterion
    data_statistics: dict[str, object]
    skipped: list[str]
    repairs: dict[str, dict[str, int]]
    fresh: list[str]


def build_training(
    config: Config,
    paths: Paths,
    *,
    device: torch.device,
    skip_missing: bool = False,
    init: Mapping[str, torch.Tensor] | None = None,
    features: FeatureStore | None = None,
) -> TrainingParts:
    """Build the data, the model on ``device`` and the losses of a run. Writes nothing.

    Args:
        skip_missing: leave out videos without features.
        init: initial weights, used as far as they fit the model.
        features: open features of the same settings and files; default: opened here.

    Raises:
        MesmError: data or settings cannot be used.
    """
    check_select(config)
    criterion = build_criterion(config.loss, config.model)
    config = with_counted_words(config, paths)
    text = build_text(config, paths, device=device)
    features = build_features(config, paths) if features is None else features
    splits = dict.fromkeys((config.dataset.train, *config.select_splits))
    absent = config.loss.absent > 0
    built = {
        split: build_split(config, paths, split, text, features, skip_missing=skip_missing, absent=absent)
        for split in splits
    }
    train_data = built[config.dataset.train].dataset
    eval_data = {split: built[split].dataset for split in config.select_splits}
    bare = [split for split, data in eval_data.items() if not all(query.windows for query in data.queries)]
    if bare:
        raise DataError(f"{', '.join(bare)} has queries without windows, so it cannot choose a checkpoint.")
    train_data.plan(seed=config.train.seed, epoch=0, batch_size=config.train.batch_size)
    features.get(train_data.queries[0].vid)  # a wrong width fails here, before anything is written
    statistics = data_statistics(train_data)
    torch.manual_seed(config.train.seed)
    model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words)
    fresh = [] if init is None else load_matching(model, init, source="the checkpoint of --init")
    model.to(device)
    return TrainingParts(
        config=config,
        paths=paths,
        text=text,
        train_data=train_data,
        eval_data=eval_data,
        model=model,
        criterion=criterion,
        data_statistics=statistics,
        skipped=[vid for split in built.values() for vid in split.missing],
        repairs={name: split.repairs for name, split in built.items() if split.repairs},
        fresh=fresh,
    )
