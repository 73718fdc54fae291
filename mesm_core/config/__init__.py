"""Settings: a frozen schema, presets, files and ``--set``; imports no torch."""
