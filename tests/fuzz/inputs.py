"""One folder of tiny valid inputs of every kind that the commands read."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import tarfile
import warnings
import zipfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from mesm_core.checkpoint import load_checkpoint, write_export
from mesm_core.data.readers import read_split
from mesm_core.extraction.setup import Options
from mesm_core.official.export import export_official
from mesm_core.search.building import IndexBuild
from mesm_core.search.choices import Choices
from mesm_core.search.writer import LOCK
from mesm_core.text.clip import ClipTextTransformer
from mesm_core.text.clip_weights import PROJECTION, write_clip_text
from mesm_core.text.vocabulary import build_vocabulary, write_vocabulary
from mesm_core.training.directory import prepare_directory
from mesm_core.training.run import Run
from tests.conftest import invent, small_config
from tests.extraction.made import make_videos
from tests.text.tiny_towers import write_source
from tests.tiny_clip import write_clip
from tests.training.families import write_record
from tests.video.made import constant, make_video

CLIP_WIDTH = 8
SENTENCES = ("The man cuts a pan.", "a person opens the drawer", "She washes the kettle, then a bowl.")
DURATION = 30.0


def write_inputs(root: Path) -> None:
    """Write all inputs below ``root``; the same bytes every time, but for times and versions in records of runs."""
    warnings.simplefilter("ignore")
    paths = invent(root / "data", train=4, val=2, test=2)
    _npy(root)
    _run(root, paths)
    _annotations(root / "data")
    _json_lines(root, paths.annotations)
    _words(root, paths.text)
    _clip(root)
    _settings(root)
    _videos(root)
    _scores(root)
    make_videos(root / "videos", 2)
    write_clip(root / "tiny.pt")
    _index(root)
    _own(root / "own", paths.annotations / "GloVe_tokenized_count.txt")


def _index(root: Path) -> None:
    """Write an index of the videos, and a file of CLIP features."""
    choices = Choices(clip_len=Fraction(1, 10), seconds=0.1)
    options, weights = Options(device="cpu"), {"clip-b32": root / "tiny.pt"}
    job = IndexBuild(
        root / "my.index", [str(root / "videos")], new=True, choices=choices, weights=weights, options=options
    )
    for _ in job.run():
        pass
    (root / "my.index" / LOCK).unlink(missing_ok=True)
    with h5py.File(root / "clip_image.hdf5", "w") as file:
        for number in range(2):
            node = file.create_dataset(f"v{number}", data=np.random.default_rng(number).random((9, 512), np.float32))
            node.attrs.update({"backbone": "clip-b32", "weights": "w" * 32, "duration": 9.0})


def _own(folder: Path, counts: Path) -> None:
    """Write annotations of the videos in ``videos``, and a count file beside them."""
    folder.mkdir()
    lines = [
        {"vid": f"v000{n}.avi", "duration": 0.2, "query": "The man cuts a pan.", "relevant_windows": [[0.0, 0.1]]}
        for n in range(2)
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copy(counts, folder)


def _npy(root: Path) -> None:
    (root / "data" / "npy").rename(root / "npy")
    files = sorted((root / "npy").glob("*.npy"))
    for file in files[3:]:
        file.unlink()
    for file in files[:3]:
        frames = np.load(file)
        (root / "npz").mkdir(exist_ok=True)
        np.savez(root / "npz" / f"{file.stem}.npz", features=frames)
    _archives(root)
    (root / "list.txt").write_text("".join(f"npy/{file.name}\n" for file in files[:3]))


def _archives(root: Path) -> None:
    """Pack the arrays in every kind of archive, and write a file that has the name of weights."""
    for name in ("npy.tar", "npy.tar.gz"):
        with (root / name).open("wb") as file:
            packed: Any = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if name.endswith(".gz") else file
            with tarfile.open(fileobj=packed, mode="w") as tar:
                for path in sorted((root / "npy").iterdir()):
                    info = tarfile.TarInfo(f"npy/{path.name}")
                    info.size = path.stat().st_size
                    with path.open("rb") as content:
                        tar.addfile(info, content)
            packed.close()
    with zipfile.ZipFile(root / "npz.zip", "w") as archive:
        for path in sorted((root / "npz").iterdir()):
            archive.writestr(zipfile.ZipInfo(f"npz/{path.name}"), path.read_bytes(), zipfile.ZIP_DEFLATED)
    (root / "weights").mkdir()
    (root / "weights" / "SLOWFAST_8x8_R50.pyth").write_bytes(b"weights")


def _run(root: Path, paths: Any) -> None:
    """Train a model, and write its checkpoint in every form."""
    config = small_config("train.epochs=1", "train.loggers=[]")
    run = root / "runs" / "tacos-a"
    prepare_directory(run, overwrite=False)
    for _ in Run.open(config, paths, run, device=torch.device("cpu")).train():
        pass
    record = json.loads((run / "run.json").read_text())
    record["sessions"][0] |= {"started": "2026-01-02T03:04:05+00:00", "seconds": 1.5, "command": ["mesm", "train"]}
    (run / "run.json").write_text(json.dumps(record, indent=2))
    for lock in run.glob(".lock"):
        lock.unlink()
    for seed in (2019, 2020):
        shutil.copytree(run, root / "families" / "tacos-two" / f"seed-{seed}")
    write_record(root / "families" / "tacos-two", [2019, 2020], config, paths)
    (root / "best.pt").write_bytes((run / "best.pt").read_bytes())
    best = load_checkpoint(run / "best.pt")
    write_export(best, root / "exported")
    (root / "official").mkdir()
    export_official(best, root / "official" / "model_best.ckpt")


def _annotations(data: Path) -> None:
    """Write annotations of the datasets that are not TACoS, about the videos of TACoS's feature file."""
    charades = data / "charades" / "annotations"
    charades.mkdir(parents=True)
    for split in ("train", "test"):
        vids = [f"{split}-{number:03}" for number in range(2)]
        lines = [f"{vid} 1.5 {9 + n}.0##{text}\n" for vid in vids for n, text in enumerate(SENTENCES)]
        (charades / f"charades_sta_{split}.txt").write_text("".join(lines))
        rows = [f"{vid},X,Kitchen,{DURATION}\n" for vid in vids]
        (charades / f"Charades_v1_{split}.csv").write_text("id,subject,scene,length\n" + "".join(rows))
    for folder, key, splits in (
        ("Charades-CD", "video_duration", ("charades_train", "charades_val", "charades_test_iid", "charades_test_ood")),
        ("Charades-CG", "duration", ("train", "novel_composition", "novel_word", "test_trivial")),
    ):
        (data / folder).mkdir()
        for split in splits:
            entry = {"timestamps": [[1.0, 9.0]] * len(SENTENCES), "sentences": list(SENTENCES), key: DURATION}
            (data / folder / f"{split}.json").write_text(json.dumps({"train-000": entry, "train-001": entry}))
    highlights = data / "qvhighlights" / "annotations"
    highlights.mkdir(parents=True)
    for split in ("train", "val"):
        records = [
            {"qid": n, "query": text, "duration": 30, "vid": f"{split}_0_30", "relevant_windows": [[2, 8]],
             "relevant_clip_ids": [1, 2, 3], "saliency_scores": [[1, 2, 3], [4, 3, 2], [0, 1, 2]]}
            for n, text in enumerate(SENTENCES)
        ]  # fmt: skip
        write_lines(highlights / f"highlight_{split}_release.jsonl", records)


def write_lines(path: Path, records: list[Any]) -> None:
    """Write records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _json_lines(root: Path, annotations: Path) -> None:
    for split in ("train", "val"):
        queries = read_split("tacos", annotations, split).queries
        records = [
            {"vid": q.vid, "duration": q.duration, "query": q.sentence, "relevant_windows": q.windows} for q in queries
        ]
        write_lines(root / f"{split}.jsonl", records)
    questions = [{"query": text, "vid": f"test-00{n % 2}", "qid": n} for n, text in enumerate(SENTENCES)]
    write_lines(root / "queries.jsonl", questions)
    (root / "queries.txt").write_text("".join(f"{text}\n" for text in SENTENCES))
    with (root / "queries.jsonl.gz").open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write((root / "queries.jsonl").read_bytes())


def _words(root: Path, glove: Path) -> None:
    """Write the word vectors in every form that is read."""
    text = glove.read_bytes()
    (root / "glove.txt").write_bytes(text)
    with (root / "glove.txt.gz").open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(text)
    with zipfile.ZipFile(root / "glove.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("glove.txt"), text, zipfile.ZIP_DEFLATED)
    sentences = [text.lower().rstrip(".").split() for text in SENTENCES]
    vocabulary = build_vocabulary(glove, sentences, dim=8)
    write_vocabulary(root / "glove.h5", vocabulary)
    content = {
        "w2id": {"<PAD>": 0} | {word: n for n, word in enumerate(vocabulary.words, start=1)},
        "id2vec": [np.zeros(8, np.float32), *vocabulary.vectors],
        "counter": Counter(dict(zip(vocabulary.words, vocabulary.counts, strict=True))),
    }
    (root / "glove.pkl").write_bytes(pickle.dumps(content))


def _clip(root: Path) -> None:
    """Write a tiny CLIP text tower in the forms that are read."""
    torch.manual_seed(0)
    model = ClipTextTransformer(vocabulary=49408, context=77, width=CLIP_WIDTH, layers=2, heads=2)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    weights[PROJECTION] = torch.randn(CLIP_WIDTH, 12)  # as wide as the features
    write_clip_text(root / "clip.safetensors", weights, heads=2, activation="quick_gelu")
    small = ClipTextTransformer(vocabulary=60, context=77, width=CLIP_WIDTH, layers=2, heads=2)
    folder = root / "clip"
    folder.mkdir()
    kinds = {"script": "ViT-B-32.pt", "pth": "clip.pth", "nested": "open.pt", "open_clip": "open_clip.safetensors"}
    for kind in kinds:
        write_source(kind, folder, small)


def _settings(root: Path) -> None:
    (root / "mine.toml").write_text(
        "# A few settings.\n\n[dataset]\nmax_frames = 30\n\n[text]\ntagger = \"lexicon\"\n\n[train]\n"
        "lr = 2e-4\nloggers = []\n\n[eval]\nthresholds = [0.3, 0.5, 0.7]\n"
    )  # fmt: skip
    flags = json.loads((root / "official" / "opt.json").read_text())
    (root / "flags.json").write_text(json.dumps(flags, indent=1))
    part = {
        "queries_per_s": 10.0,
        "products_per_query": 1.0,
        "useful_gflops": 2.0,
        "useful_share_of_product_rate": 0.5,
        "waiting_for_data": 0.1,
        "model_ms": 3.0,
        "answer_ms": 4.0,
    }
    (root / "bench.json").write_text(json.dumps({"training": part, "evaluation": part, "prediction": part}))


def _videos(root: Path) -> None:
    for ending in ("mp4", "mkv"):
        make_video(root / f"video.{ending}", constant(25, 12), size=(32, 16), sound=True)


def _scores(root: Path) -> None:
    truth = [
        {"qid": n, "vid": "v", "duration": 30, "query": text, "relevant_windows": [[2, 8]],
         "relevant_clip_ids": [1, 2, 3], "saliency_scores": [[1, 2, 3], [4, 3, 2], [0, 1, 2]]}
        for n, text in enumerate(SENTENCES)
    ]  # fmt: skip
    write_lines(root / "truth.jsonl", truth)
    for name, end in (("ours", 8), ("theirs", 12)):
        answers = [
            {"qid": n, "query": text, "vid": "v", "pred_relevant_windows": [[1.5, end, 0.9], [0, 20, 0.3]],
             "pred_saliency_scores": [0.1 * k for k in range(15)]}
            for n, text in enumerate(SENTENCES)
        ]  # fmt: skip
        write_lines(root / f"{name}.jsonl", answers)
    with (root / "ours.jsonl.gz").open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write((root / "ours.jsonl").read_bytes())


def features_of(path: Path) -> list[str]:
    """Return the videos of a feature file."""
    with h5py.File(path) as file:
        return sorted(file)
