"""A hash of a network's weights, by which features of other weights are recognised."""

from __future__ import annotations

import hashlib

from torch import nn


def hash_weights(model: nn.Module) -> str:
    """Return a hash of a model's weights that does not depend on where they lie."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
