"""Agreement with worked examples of the published implementation: ``python -m tests.parity DIR``."""
