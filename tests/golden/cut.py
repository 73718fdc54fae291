"""Cuts the small worked examples of ``tests/golden/data`` from the large ones: python -m tests.golden.cut SHARED."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from mesm_core.metrics.report import moment_tables
from mesm_core.text.vocabulary import read_vocabulary
from mesm_core.text.words import LexiconTagger

DATA = Path(__file__).parent / "data"
MODELS = ("charades_no_recss", "qvhighlights_clip", "tacos_glove")
SYSTEM = "cg_detr"
VIDEOS = 20
WORDS = 100


def main(shared: Path) -> None:
    """Write every example."""
    for name in MODELS:
        cut_model(shared / "golden" / "model" / f"{name}.npz", DATA / "model" / f"{name}.npz")
    cut_metrics(shared, DATA / "metrics")
    cut_official(shared, DATA / "official_charades")


def cut_model(source: Path, target: Path) -> None:
    """Keep the gradients of biases, which lie in every layer, and the largest gradient, by which errors are scaled."""
    with np.load(source) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    gradients = {name: value for name, value in content.items() if name.startswith("grad/")}
    largest = max(gradients, key=lambda name: float(np.abs(gradients[name]).max()))
    left_out = {name for name in gradients if not name.endswith("bias") and name != largest}
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
        for name, value in content.items():
            if name not in left_out:
                file = io.BytesIO()
                np.save(file, value)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), file.getvalue(), zipfile.ZIP_LZMA)


def cut_metrics(shared: Path, target: Path) -> None:
    """Copy a system's predictions and published figures, and the ground truth without what scoring does not read."""
    target.mkdir(parents=True, exist_ok=True)
    for ending in ("preds.jsonl.gz", "metrics.json"):
        shutil.copyfile(shared / "golden" / "metrics" / f"{SYSTEM}_val_{ending}", target / f"{SYSTEM}_val_{ending}")
    truth = shared / "data" / "qvhighlights" / "annotations" / "highlight_val_release.jsonl"
    (target / "highlight_val_release.jsonl.gz").write_bytes(gzip.compress(truth.read_bytes(), 9, mtime=0))


def cut_official(shared: Path, target: Path) -> None:
    """Keep 20 videos and the words of their queries; weights in float16, without optimiser and rare words' classes."""
    source = shared / "golden" / "official_charades"
    (target / "annotations").mkdir(parents=True, exist_ok=True)
    lines = (source / "annotations" / "charades_sta_test.txt").read_text().splitlines()
    chosen = list(dict.fromkeys(line.split()[0] for line in lines))[:VIDEOS]
    kept = [number for number, line in enumerate(lines) if line.split()[0] in chosen]
    (target / "annotations" / "charades_sta_test.txt").write_text("".join(f"{lines[number]}\n" for number in kept))
    with (source / "annotations" / "Charades_v1_test.csv").open(newline="") as file:
        lengths = {row["id"]: row["length"] for row in csv.DictReader(file)}
    table = "".join(f"{vid},{lengths[vid]}\n" for vid in chosen)
    (target / "annotations" / "Charades_v1_test.csv").write_text(f"id,length\n{table}")
    with h5py.File(source / "features.hdf5") as features, h5py.File(target / "features.hdf5", "w") as out:
        for vid in chosen:
            out.create_dataset(vid, data=features[vid][()].astype(np.float16), compression="gzip", shuffle=True)
    words = cut_vocabulary(shared, target, [lines[number].split("##")[1] for number in kept])
    cut_checkpoint(source, target, classes=min(WORDS, words))
    answers = {answer["qid"]: answer for answer in map(json.loads, (source / "expected_preds.jsonl").open())}
    truth = [np.array([[float(word) for word in lines[number].partition("##")[0].split()[1:]]]) for number in kept]
    ends = [float(lengths[lines[number].split()[0]]) for number in kept]
    windows = [np.minimum(window, end) for window, end in zip(truth, ends, strict=True)]
    cut_answers([answers[number] for number in kept], windows, target)


def cut_vocabulary(shared: Path, target: Path, sentences: list[str]) -> int:
    """Keep the words of the sentences and return how many there are."""
    vocabulary = read_vocabulary(shared / "data" / "charades" / "annotations" / "glove.pkl")
    tagger = LexiconTagger()
    said = {token.lower() for sentence in sentences for token in tagger.tokens(sentence)}
    rows = [row for row, word in enumerate(vocabulary.words) if word in said]
    with h5py.File(target / "vocabulary.h5", "w") as file:
        file["words"] = np.array([vocabulary.words[row].encode() for row in rows], dtype=object)
        file["counts"] = np.array([vocabulary.counts[row] for row in rows], np.int64)
        file.create_dataset("vectors", data=vocabulary.vectors[rows], compression="gzip", shuffle=True)
        file.attrs["format"] = "mesm-vocabulary"
    return len(rows)


def cut_checkpoint(source: Path, target: Path, *, classes: int) -> None:
    """Write the weights in float16, with the most frequent ``classes`` words and "unknown" in the word head."""
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        whole: dict[str, Any] = torch.load(source / "model_test_best.ckpt", weights_only=True)
    all_classes = whole["opt"].vocab_size + 1
    rows = [*range(classes), all_classes - 1]
    weights = {
        name: (value[rows] if value.shape[:1] == (all_classes,) else value).to(torch.float16).clone()
        for name, value in whole["model"].items()
    }
    whole["opt"].vocab_size = classes
    torch.save({"model": weights, "epoch": whole["epoch"], "opt": whole["opt"]}, target / "model_test_best.ckpt")
    settings = json.loads((source / "opt.json").read_text()) | {"vocab_size": classes}
    (target / "opt.json").write_text(json.dumps(settings, indent=2) + "\n")


def cut_answers(answers: list[dict[str, Any]], truth: list[np.ndarray], target: Path) -> None:
    """Write the published code's windows, numbered anew, and their figures by the ground truth (m, 2) of each query."""
    records = [
        {"qid": number, "vid": answer["vid"], "pred_relevant_windows": answer["pred_relevant_windows"]}
        for number, answer in enumerate(answers)
    ]
    (target / "expected_preds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    tables = moment_tables([np.array(record["pred_relevant_windows"]) for record in records], truth)
    (target / "expected_metrics.json").write_text(json.dumps({"brief": tables["brief"]}, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
