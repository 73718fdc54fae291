"""The lines of docs/features.md: each makes a file that a preset reads, from an archive of the layout it names."""

from __future__ import annotations

import io
import shlex
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from mesm_core.config.load import load_config, preset_names
from mesm_core.data.readers import read_split

PAGE = (Path(__file__).parents[1] / "docs" / "features.md").read_text()
LINES = [line for line in PAGE.splitlines() if line.startswith("mesm prepare npy2hdf5")]
FILES = {f"data/{path}" for name in preset_names() for path in load_config(name).dataset.features}
VIDEO = {"TACoS": "s30-d52", "charades": "3MSZA", "qvhighlights": "NUsG9BgSes0_210.0_360.0"}


def test_there_is_a_line_for_each_archive() -> None:
    assert len(LINES) == 9
    for address in ("1Hiln02F1NEpoW8-iPZurRyi-47-W2_B9", "1-ALnsXkA4csKh71sRndMwybxEDqa-dM4",
                    "1EOeP2A4IMYdotbTlTqDbv5VdvEAgQJl8", "1rYzme9JNAk3niH1K81wgT13pOMn005jb",
                    "nlp.cs.unc.edu/data/jielei/qvh/qvhilights_videos.tar.gz"):  # fmt: skip
        assert address in PAGE


@pytest.mark.parametrize("line", LINES)
def test_a_line(mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(line)
    archive, _, folder = words[2].partition("::")
    dataset = Path(words[3]).parent.name
    content = io.BytesIO()
    np.savez(content, features=np.ones((5, 3), np.float32))
    with tarfile.open(archive, "w:gz") as tar:
        for name in (folder, "other"):
            info = tarfile.TarInfo(f"features/{name}/{VIDEO[dataset]}.npz")
            info.size = len(content.getvalue())
            tar.addfile(info, io.BytesIO(content.getvalue()))
    done = mesm(*words)
    assert done.code == 0, done.err
    assert words[3] in FILES
    with h5py.File(words[3]) as file:
        (made,) = file
    splits = {"TACoS": ("tacos", "test"), "charades": ("charades", "test"), "qvhighlights": ("qvhighlights", "val")}
    reader, split = splits[dataset]
    folder_of = load_config(reader).dataset.annotations
    assert made in {query.vid for query in read_split(reader, shared / "data" / folder_of, split).queries}
