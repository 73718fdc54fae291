"""A collection of videos: its index, and search in it."""

from __future__ import annotations

from mesm_core.search.engines.protocol import SegmentHit
from mesm_core.search.index import Index
from mesm_core.search.loading import load_searcher
from mesm_core.search.manifest import IndexedVideo
from mesm_core.search.results import Found, Results
from mesm_core.search.searcher import Searcher

__all__ = ["Found", "Index", "IndexedVideo", "Results", "Searcher", "SegmentHit", "load_searcher"]
