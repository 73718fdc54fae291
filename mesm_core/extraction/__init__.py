"""Videos to feature files: which videos, one pass of the decoder for all backbones, and what is kept of it."""
