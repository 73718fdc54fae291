"""Measure how well confidence separates queries from negatives, and how reliable it is, on videos it was not fitted on.

    python benchmarks/learning.py charades600_tacos --work /tmp/learning
    python benchmarks/calibration.py /tmp/learning/charades600_tacos-fp32-*/best.pt

Calibrates checkpoints on the split that chose them, each half of the videos testing what the other half fitted. Also
calibrates without the share of known words, which shows what the model's own outputs tell. Exits with 1 if the mean
AUROC of out-of-domain negatives is below 0.95, or a mean ECE is above 0.05.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mesm_core.confidence.calibration import fit_calibration
from mesm_core.confidence.quantities import NAMES
from mesm_core.confidence.samples import IN_DOMAIN, OUT_OF_DOMAIN, Samples
from mesm_core.inference.calibrating import ask, halves_to_ask
from mesm_core.inference.calibration_job import load_for_calibration
from mesm_core.version import __version__

LEAST_AUROC, MOST_ECE = 0.95, 0.05
ALL, OUTPUTS = "all quantities", "without known words"


def without_known_words(samples: Samples) -> Samples:
    """Return the same answers as if all words of all queries were known."""
    column = NAMES.index("known")
    kept = []
    for sample in samples.samples:
        quantities = sample.quantities.copy()
        quantities[:, column] = 1
        kept.append(replace(sample, quantities=quantities))
    return Samples(kept)


def reports(checkpoint: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the reports of both halves, with all quantities and without the share of known words."""
    job = load_for_calibration(checkpoint, device="cpu")
    halves = [ask(job.examinee, half) for half in halves_to_ask(job.queries)]
    found: dict[str, list[dict[str, Any]]] = {}
    for name, parts in ((ALL, halves), (OUTPUTS, list(map(without_known_words, halves)))):
        found[name] = [
            dict(fit_calibration(fit, test, model="", data=job.data).report) for fit, test in (parts, parts[::-1])
        ]
    return found


def line(report: dict[str, Any]) -> list[float]:
    """Return AUROC and rejection of both kinds of negatives, and the ECE of answers, all and first moments, in %."""
    kinds = [100 * report[kind][name] for kind in (IN_DOMAIN, OUT_OF_DOMAIN) for name in ("auroc", "rejected_at_95")]
    return kinds + [100 * report[key]["ece"] for key in ("answers", "moments", "first")]


def curve(found: Sequence[dict[str, Any]]) -> None:
    """Print the mean share of queries kept, R1 and mIoU at each threshold that every report reaches."""
    for threshold in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        rows = [row for report in found for row in report["kept"] if row["threshold"] == threshold]
        if len(rows) == len(found):
            means = [100 * float(np.mean([row[key] for row in rows])) for key in ("kept", "R1", "mIoU")]
            print(f"  {threshold:.1f}  " + "  ".join(f"{value:5.1f}" for value in means))


def main() -> int:
    """Calibrate the checkpoints, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("in-domain AUROC, rejected; out-of-domain AUROC, rejected; ECE of answers, moments, first moments; in %")
    rows: dict[str, list[list[float]]] = {ALL: [], OUTPUTS: []}
    every: list[dict[str, Any]] = []
    for checkpoint in arguments.checkpoints:
        for name, found in reports(checkpoint).items():
            every += found if name == ALL else []
            for half, report in enumerate(found):
                rows[name].append(line(report))
                shown = "  ".join(f"{value:5.1f}" for value in rows[name][-1])
                print(f"{checkpoint.parent.name}, {name}, tested on half {2 - half}: {shown}", flush=True)
    means = {name: np.mean(values, axis=0) for name, values in rows.items()}
    for name, values in means.items():
        print(f"mean, {name}: " + "  ".join(f"{value:5.1f}" for value in values))
    print("confidence from, queries kept, R1@0.5, mIoU")
    curve(every)
    where = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads"
    print(f"{where}, load {os.getloadavg()[0]:.1f}; mesm {__version__}, torch {torch.__version__}", end="")
    print(f", Python {platform.python_version()}")
    mean = means[ALL] / 100
    return int(mean[2] < LEAST_AUROC or mean[4:].max() > MOST_ECE)


if __name__ == "__main__":
    sys.exit(main())
