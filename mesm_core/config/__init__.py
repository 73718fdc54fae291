"""Settings: a frozen schema, presets, files and ``--set``. Does not import torch."""
