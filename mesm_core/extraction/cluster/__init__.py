"""Extraction on the nodes of a Ray cluster: the driver hands out videos one by one and stores what comes back."""
