"""Frames to features: one protocol (``protocol.py``), one table (``registry.py``), one file a backbone."""
