"""Bipartite matching of slots and ground-truth windows (detr models/matcher.py; docs/model.md, "Losses")."""

from __future__ import annotations

from functools import lru_cache
from math import perm

import numpy as np
import torch
from torch import Tensor

MOST_ASSIGNMENTS = 30_240
"""Largest number of assignments for which all are scored: that of 5 windows to 10 slots."""

SCORED_AT_ONCE = 1 << 22
"""Largest number of scores in memory at a time, over all queries: 32 MB."""

NAN_COST, INFINITE_COST = -1e30, 1e30


@torch.no_grad()
def matching_cost(
    logits: Tensor, distance: Tensor, overlap: Tensor, *, cost_span: float, cost_giou: float, cost_class: float
) -> Tensor:
    """Return the (..., N, M) cost of matching slot n with window m: span·L1 - giou·gIoU - class·p(foreground).

    Args:
        logits: (..., N, 2); distance, overlap: (..., N, M) L1 distance and gIoU of slots and windows.
    """
    foreground = logits.softmax(dim=-1)[..., :1]
    cost = (cost_span * distance).sub(overlap, alpha=cost_giou)
    return cost.sub(foreground, alpha=cost_class)


@torch.no_grad()
def match(cost: Tensor, mask: Tensor) -> Tensor:
    """Return the slot of every window, (Q, M) int64, that minimises the total cost; 0 where there is no window.

    NaN counts as the lowest cost, so that such a slot is matched and the loss becomes NaN. Among assignments of equal
    cost, the lexicographically first one is returned, except where scipy computes the assignment.

    Args:
        cost: (Q, N, M); mask: (Q, M) bool, True where there is a window.
    """
    _, slots, windows = cost.shape
    if windows == 1:
        return cost.squeeze(2).argmin(dim=1, keepdim=True)
    # scipy is faster on the CPU. On other devices it would need copies to the host and back, and wait for them.
    if cost.device.type == "cpu" or windows > slots or perm(slots, windows) > MOST_ASSIGNMENTS:
        return match_by_scipy(cost, mask)
    return match_by_scores(cost, mask)


def match_by_scores(cost: Tensor, mask: Tensor) -> Tensor:
    """Compute ``match`` by scoring every assignment of M windows to N ≥ M slots, on the device of ``cost``."""
    queries, slots, windows = cost.shape
    choices = assignments(slots, windows, cost.device)  # (P, M)
    # Absent windows cost nothing in any slot, and there are enough slots for all windows.
    costs = cost.double().masked_fill(~mask.unsqueeze(1), 0.0)
    found = []
    for part in torch.split(costs, max(SCORED_AT_ONCE // len(choices), 1)):
        total = part[:, choices[:, 0], 0]  # (Q, P)
        for window in range(1, windows):
            total = total + part[:, choices[:, window], window]
        found.append(choices[total.argmin(dim=1)])
    return torch.where(mask, torch.cat(found) if queries else mask.long(), 0)


@lru_cache(maxsize=16)
def assignments(slots: int, windows: int, device: torch.device) -> Tensor:
    """Return all P assignments of M windows to different slots, (P, M) int64 in lexicographic order, on ``device``.

    >>> assignments(3, 2, torch.device("cpu")).tolist()
    [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    """
    left = torch.arange(perm(slots, windows), device=device)
    chosen: list[Tensor] = []
    # Mixed-radix digits of the assignment's number: each is the rank of a slot among the slots not yet taken.
    for window in reversed(range(windows)):
        chosen.insert(0, left % (slots - window))
        left = torch.div(left, slots - window, rounding_mode="floor")
    for window in reversed(range(windows)):
        for later in range(window + 1, windows):
            chosen[later] = chosen[later] + (chosen[later] >= chosen[window])
    return torch.stack(chosen, dim=1)


def match_by_scipy(cost: Tensor, mask: Tensor) -> Tensor:
    """Compute ``match`` by one Hungarian assignment per query, on the host."""
    from scipy.optimize import linear_sum_assignment  # takes 0.2 s; only needed to train with several windows

    costs = np.nan_to_num(
        cost.cpu().numpy().astype(np.float64), nan=NAN_COST, posinf=INFINITE_COST, neginf=-INFINITE_COST
    )
    slots = np.zeros(mask.shape, np.int64)
    for query, valid in enumerate(mask.cpu().numpy()):
        slot, window = linear_sum_assignment(costs[query][:, valid])
        slots[query, np.flatnonzero(valid)[window]] = slot
    return torch.from_numpy(slots).to(cost.device)
