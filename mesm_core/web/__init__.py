"""The API and the page of ``mesm serve``."""
