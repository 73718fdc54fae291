"""The MESM network as one reads it: padded tensors with masks, built from injected parts."""
