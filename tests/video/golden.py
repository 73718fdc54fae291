"""The worked examples of video features."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("MESM_SHARED", Path(__file__).resolve().parents[3] / "shared"))
GOLDEN, MEDIA = SHARED / "video" / "golden", SHARED / "media"
needs_shared = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the worked examples of video features are not here")


def golden_json(name: str) -> dict[str, Any]:
    """Return what a JSON file of the examples holds."""
    content: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return content
