"""Attributes of feature files are read back as they were written."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from mesm_core.data.attributes import describe

TOLD = {"source": "videos/café.npy", "weights": "0" * 64, "frames": 12, "fps": 0.5}


def test_written_texts_and_numbers_are_read_back(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name in ("a", "b"):
            describe(file.create_dataset(name, data=np.zeros((2, 3))).id, TOLD)
    with h5py.File(tmp_path / "x.hdf5") as file:
        assert dict(file["a"].attrs) == dict(file["b"].attrs) == TOLD
