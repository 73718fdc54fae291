"""Tables of confidence: separation from negatives, reliability, and what a threshold keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesm_cli import render

NEGATIVES = {"in_domain": "in-domain", "out_of_domain": "out-of-domain"}
CHANCES = {"answers": "there is an answer", "moments": "IoU ≥ 0.5, all moments", "first": "IoU ≥ 0.5, first moment"}
SHOWN_THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def calibration_text(summary: Mapping[str, Any]) -> str:
    """Return the main figures of a calibration in a line, or why there is none; ``summary`` as in a run's record."""
    if "reason" in summary:
        return f"no calibration, so answers have none: {summary['reason']}"
    return (
        f"on {summary['data']}, ECE {summary['ECE answers']:.1f}% (answers), {summary['ECE moments']:.1f}% (moments); "
        f"AUROC {summary['AUROC in_domain']:.1f}% (in-domain), {summary['AUROC out_of_domain']:.1f}% (out-of-domain)"
    )


def show_report(report: Mapping[str, Any], *, data: str) -> None:
    """Print a report as ``mesm_core.confidence.report.confidence_report`` returns it; figures in %."""
    counts = report["questions"]
    asked = ", ".join([f"{counts['real']} queries", *(f"{counts[kind]} {name}" for kind, name in NEGATIVES.items())])
    render.say(f"Confidence on videos that it was not fitted on ({data}): {asked} negatives; in %")
    rows = [
        [name, f"{100 * report[kind]['auroc']:.1f}", f"{100 * report[kind]['rejected_at_95']:.1f}"]
        for kind, name in NEGATIVES.items()
    ]
    render.table(["negatives", "AUROC", "rejected, 95% of queries kept"], rows)
    render.say()
    render.table(["probability", "ECE"], [[name, f"{100 * report[key]['ece']:.1f}"] for key, name in CHANCES.items()])
    render.say()
    _kept_table(report["kept"])


def show_kept(confidence: Mapping[str, Any], *, name: str) -> None:
    """Print how reliable the confidence of a submission is, and what a threshold keeps; figures in %."""
    ece = 100 * confidence["reliability"]["ece"]
    render.say(f"Confidence of {name} as the probability of R1@0.5: ECE {ece:.1f}")
    _kept_table(confidence["kept"])


def _kept_table(rows: Sequence[Mapping[str, float]]) -> None:
    shown = [row for row in rows if row["threshold"] in SHOWN_THRESHOLDS]
    render.table(
        ["confidence from", "answers kept", "R1@0.5", "mIoU"],
        [[f"{row['threshold']:.1f}", *(f"{100 * row[key]:.1f}" for key in ("kept", "R1", "mIoU"))] for row in shown],
    )
