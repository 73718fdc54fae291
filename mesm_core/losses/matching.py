"""Which slot answers for which window (detr models/matcher.py; docs/model.md, "Losses")."""

from __future__ import annotations

from functools import lru_cache
from math import perm

import numpy as np
import torch
from torch import Tensor

from mesm_core.losses.spans import generalized_iou, to_windows

MOST_ASSIGNMENTS = 30_240
"""Assignments of 5 windows to 10 slots, the most that are scored one by one."""

SCORED_AT_ONCE = 1 << 22
"""Scores held at a time, of all queries together: 32 MB."""

NAN_COST, INFINITE_COST = -1e30, 1e30


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

    A cost of NaN counts as the least: the slot is matched, and the loss says NaN. Of assignments that cost the same,
    the first is returned, by the slots of the windows in order; where scipy assigns, the one that it finds.

    Args:
        cost: (Q, N, M); mask: (Q, M) bool, True where a window is.
    """
    _, slots, windows = cost.shape
    if windows == 1:
        return cost.squeeze(2).argmin(dim=1, keepdim=True)
    # scipy is the faster on the CPU; elsewhere it would cost copies to the host and back, and waiting for them.
    if cost.device.type == "cpu" or windows > slots or perm(slots, windows) > MOST_ASSIGNMENTS:
        return match_by_scipy(cost, mask)
    return match_by_scores(cost, mask)


def match_by_scores(cost: Tensor, mask: Tensor) -> Tensor:
    """Return what ``match`` does by scoring every assignment of M windows to N ≥ M slots, on the device of ``cost``."""
    queries, slots, windows = cost.shape
    choices = assignments(slots, windows, cost.device)  # (P, M)
    # A window that is not there costs nothing anywhere, and there are slots enough for all.
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
    """Return every way (P, M) int64 to give M windows different slots, in rising order, made on the device.

    >>> assignments(3, 2, torch.device("cpu")).tolist()
    [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    """
    left = torch.arange(perm(slots, windows), device=device)
    chosen: list[Tensor] = []
    # The digits of a number whose places count the slots left: each is a slot's rank among those not taken.
    for window in reversed(range(windows)):
        chosen.insert(0, left % (slots - window))
        left = torch.div(left, slots - window, rounding_mode="floor")
    for window in reversed(range(windows)):
        for later in range(window + 1, windows):
            chosen[later] = chosen[later] + (chosen[later] >= chosen[window])
    return torch.stack(chosen, dim=1)


def match_by_scipy(cost: Tensor, mask: Tensor) -> Tensor:
    """Return what ``match`` does by a Hungarian assignment a query, on the host."""
    from scipy.optimize import linear_sum_assignment  # 0.2 s, and only training with several windows needs it

    costs = np.nan_to_num(
        cost.cpu().numpy().astype(np.float64), nan=NAN_COST, posinf=INFINITE_COST, neginf=-INFINITE_COST
    )
    slots = np.zeros(mask.shape, np.int64)
    for query, valid in enumerate(mask.cpu().numpy()):
        slot, window = linear_sum_assignment(costs[query][:, valid])
        slots[query, np.flatnonzero(valid)[window]] = slot
    return torch.from_numpy(slots).to(cost.device)
