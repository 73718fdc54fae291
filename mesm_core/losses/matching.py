"""Which slot answers for which window (detr models/matcher.py; mesm-model.md, "Losses")."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mesm_core.losses.spans import generalized_iou, to_windows


@torch.no_grad()
def matching_cost(
    logits: Tensor, spans: Tensor, targets: Tensor, *, cost_span: float, cost_giou: float, cost_class: float
) -> Tensor:
    """Return the (Q, N, M) cost of giving slot n to window m: span·L1 - giou·gIoU - class·p(foreground).

    Args:
        logits: (Q, N, 2); spans: (Q, N, 2) and targets: (Q, M, 2), center and width.
    """
    foreground = logits.softmax(dim=-1)[..., :1]
    distance = torch.cdist(spans, targets, p=1)
    overlap = generalized_iou(to_windows(spans).unsqueeze(2), to_windows(targets).unsqueeze(1))
    return cost_span * distance - cost_giou * overlap - cost_class * foreground


@torch.no_grad()
def match(cost: Tensor, mask: Tensor) -> Tensor:
    """Return the slot (Q, M) int64 of every window, at the least total cost; 0 where there is no window.

    One window a query is an arg-min on the device; several are a Hungarian assignment on the host.

    Args:
        cost: (Q, N, M); mask: (Q, M) bool, True where a window is.
    """
    if mask.shape[1] == 1:
        return cost.squeeze(2).argmin(dim=1, keepdim=True)
    from scipy.optimize import linear_sum_assignment  # predicting needs no scipy, which takes long to import

    slots = np.zeros(mask.shape, np.int64)
    for query, (costs, valid) in enumerate(zip(cost.cpu().numpy(), mask.cpu().numpy(), strict=True)):
        slot, window = linear_sum_assignment(costs[:, valid])
        slots[query, np.flatnonzero(valid)[window]] = slot
    return torch.from_numpy(slots).to(cost.device)
