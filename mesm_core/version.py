"""The version of mesm."""

__version__ = "0.1.0"
