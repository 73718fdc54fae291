"""Extracts feature files from videos: one decoding pass for all backbones, a cache, and resumable jobs."""
