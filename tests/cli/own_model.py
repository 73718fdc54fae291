"""A small model trained on invented features that have the attributes of extracted ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from mesm_core.config.load import load_config
from mesm_core.data.count_dataset import count_dataset
from mesm_core.training.directory import prepare_directory
from mesm_core.training.run import Run
from tests.conftest import invent


def train_model(root: Path, *, backbone: str, width: int, attributes: Mapping[str, Any], clip_len: float) -> Path:
    """Train for an epoch in ``root`` and return the path of the checkpoint.

    Args:
        width: of the features; attributes: of the datasets in the feature file.
    """
    paths = invent(root)
    with h5py.File(paths.features[0]) as file:
        names = {name: float(node.attrs["duration"]) for name, node in file.items()}
    with h5py.File(root / f"{backbone}.hdf5", "w") as target:
        for name, seconds in names.items():
            rows = np.random.default_rng(len(name)).normal(size=(round(seconds / clip_len), width))
            target[name] = rows.astype(np.float16)
            target[name].attrs.update(dict(attributes) | {"duration": seconds, "frames": len(rows)})
    sizes = (f"video_dim={width}", "text_dim=8", "hidden_dim=16", "heads=2", "dim_feedforward=32", "slots=4")
    config = load_config(
        "tacos",
        overrides=[
            "dataset.max_frames=40",
            f"dataset.clip_len={clip_len}",
            *(f"model.{word}" for word in (*sizes, "segment_sentence_layers=1")),
            "text.vocab_size=15",
            "train.batch_size=4",
            "train.epochs=1",
            "train.loggers=[]",
        ],
    )
    run = root / "runs" / "mine"
    prepare_directory(run, overwrite=False)
    count_dataset("tacos", paths.annotations, out=paths.annotations, kinds=["glove"], max_words=16, overwrite=True)
    given = type(paths)(paths.annotations, (root / f"{backbone}.hdf5",), paths.text)
    for _ in Run.open(config, given, run, device=torch.device("cpu")).train():
        pass
    return run / "best.pt"
