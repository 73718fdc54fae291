"""The confidence of a model on a page: its reliability, and what a threshold keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mesm_core.pages.page import cards, curves, paragraph, section, stats

if TYPE_CHECKING:  # Jinja2 is loaded when a page is written
    from markupsafe import Markup

NEGATIVES = {"in_domain": "in-domain", "out_of_domain": "out-of-domain"}
CHANCES = {"answers": "there is an answer", "first": "IoU ≥ 0.5, first moment"}


def confidence_section(report: Mapping[str, Any]) -> Markup:
    """Return the section of a report as ``mesm_core.confidence.report.confidence_report`` returns it."""
    figures: list[tuple[str, float | None]] = []
    for kind, name in NEGATIVES.items():
        figures.append((f"AUROC, {name}, %", 100 * report[kind]["auroc"]))
        figures.append((f"rejected, {name}, %", 100 * report[kind]["rejected_at_95"]))
    figures += [(f"ECE, {name}, %", 100 * report[key]["ece"]) for key, name in CHANCES.items()]
    lines = {"as stated": [(0.0, 0.0), (1.0, 1.0)]}
    for key, name in CHANCES.items():
        lines[name] = [(mean, share) for _, _, mean, share, _, _ in report[key]["bins"]]
    kept = {
        name: [(row["threshold"], row[key]) for row in report["kept"]]
        for key, name in (("kept", "answers kept"), ("R1", "R1@0.5"), ("mIoU", "mIoU"))
    }
    reliability = section("Reliability", curves(lines, x="stated probability"), _about(report), level=3)
    thresholds = section("Answers above a confidence", curves(kept, x="confidence"), level=3)
    return section("Confidence", stats(figures), cards([reliability, thresholds]))


def _about(report: Mapping[str, Any]) -> Markup:
    counts = report["questions"]
    return paragraph(
        f"What came true of the stated probability, for {counts['real']} queries, {counts['in_domain']} in-domain and "
        f"{counts['out_of_domain']} out-of-domain negatives, where half of the weight is that of the queries. "
        "Rejected: the share of negatives below the confidence that 95% of the queries reach."
    )
