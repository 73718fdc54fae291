"""Names, flags and checkpoints of the paper's published implementation."""
