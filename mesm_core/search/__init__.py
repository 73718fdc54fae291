"""A collection of videos: its index, and search in it."""

from __future__ import annotations

from mesm_core.search.engines.protocol import SegmentHit
from mesm_core.search.index import Index
from mesm_core.search.manifest import IndexedVideo

__all__ = ["Index", "IndexedVideo", "SegmentHit"]
