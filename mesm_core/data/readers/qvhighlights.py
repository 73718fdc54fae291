"""QVHighlights: JSON lines with several windows and saliency scores per query (docs/datasets.md, "Rules")."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mesm_core.data.annotations import Annotations
from mesm_core.data.readers.json_lines import read_lines


class QVHighlights:
    """Reader of ``highlight_{train,val,test}_release.jsonl``."""

    splits: tuple[str, ...] = ("train", "val", "test")
    count_splits: tuple[str, ...] = ("train", "val")
    counts_in: str | None = None
    truths: Mapping[str, str] = MappingProxyType({"test": "highlight_test_with_gt.jsonl"})

    def files(self, folder: Path, split: str) -> tuple[Path, ...]:
        """Return the files that ``read`` reads."""
        return (folder / f"highlight_{split}_release.jsonl",)

    def read(self, folder: Path, split: str) -> Annotations:
        """Return the split's queries, grouped by source video; the test file has no windows.

        Raises:
            DataError: the file is missing or malformed; the message names the line.
        """
        return read_lines(*self.files(folder, split), source_of=True)
