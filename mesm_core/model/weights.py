"""A hash of a network's weights, which tells whether cached features come from other weights."""

from __future__ import annotations

import hashlib

from torch import nn


def hash_weights(model: nn.Module) -> str:
    """Return a hash of a model's weights that does not depend on their device."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
