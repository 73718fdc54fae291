"""The MESM network, written to be read: padded tensors with masks, composed of injected parts."""
