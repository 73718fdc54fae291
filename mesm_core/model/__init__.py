"""The MESM network: pure functions of a batch's inputs, built from injected parts."""
