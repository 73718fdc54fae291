"""Which slot answers for which window: every way to match costs the least, and NaN is told by the loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mesm_core.losses import criterion, matching
from mesm_core.losses.matching import assignments, match, match_by_scipy, match_by_scores
from mesm_core.losses.spans import span_loss
from tests.conftest import GOLDEN
from tests.parity.fixture import OUTPUT_TOLERANCE, compare

CPU = torch.device("cpu")


def mixed(seed: int, queries: int, slots: int, windows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return costs (Q, N, M) and a mask (Q, M) with other numbers of windows in every query, at least one."""
    rng = np.random.default_rng(seed)
    mask = rng.random((queries, windows)) < 0.6
    mask[np.arange(queries), rng.integers(windows, size=queries)] = True
    return torch.from_numpy(rng.normal(size=(queries, slots, windows)).astype(np.float32)), torch.from_numpy(mask)


def totals(cost: torch.Tensor, mask: torch.Tensor, slots: torch.Tensor) -> list[float]:
    """Return each query's cost of an assignment, whose slots must differ."""
    result = []
    for costs, valid, chosen in zip(cost.double().numpy(), mask.numpy(), slots.numpy(), strict=True):
        assert len(set(chosen[valid])) == valid.sum()
        assert not chosen[~valid].any()
        result.append(float(costs[chosen[valid], np.flatnonzero(valid)].sum()))
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6), st.integers(2, 10), st.integers(2, 5))
def test_scoring_every_assignment_costs_what_scipy_does(seed: int, queries: int, slots: int, windows: int) -> None:
    cost, mask = mixed(seed, queries, max(slots, windows), windows)
    ours, theirs = match_by_scores(cost, mask), match_by_scipy(cost, mask)
    assert ours.dtype == theirs.dtype == torch.int64
    assert totals(cost, mask, ours) == pytest.approx(totals(cost, mask, theirs), rel=1e-12)
    for costs, valid, total in zip(cost.double().numpy(), mask.numpy(), totals(cost, mask, theirs), strict=True):
        rows, columns = linear_sum_assignment(costs[:, valid])
        assert total == pytest.approx(costs[:, valid][rows, columns].sum(), rel=1e-12)


def test_memory_is_bounded_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, mask = mixed(1, 9, 6, 3)
    whole = match_by_scores(cost, mask)
    monkeypatch.setattr(matching, "SCORED_AT_ONCE", 250)  # two queries' 120 assignments
    assert torch.equal(match_by_scores(cost, mask), whole)
    monkeypatch.setattr(matching, "SCORED_AT_ONCE", 1)
    assert torch.equal(match_by_scores(cost, mask), whole)


def test_of_equal_assignments_the_first_is_taken() -> None:
    cost = torch.zeros(2, 4, 3)
    mask = torch.tensor([[True, True, True], [False, True, True]])
    assert match_by_scores(cost, mask).tolist() == [[0, 1, 2], [0, 1, 2]]
    cost[0, 0] = 1.0
    assert match_by_scores(cost, mask)[0].tolist() == [1, 2, 3]


def test_assignments_are_all_and_rise() -> None:
    rows = [tuple(row) for row in assignments(10, 5, CPU).tolist()]
    assert len(rows) == len(set(rows)) == matching.MOST_ASSIGNMENTS
    assert rows == sorted(rows)
    assert all(len(set(row)) == 5 for row in rows[::97])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("way", [match, match_by_scores, match_by_scipy])
def test_costs_that_are_not_finite_do_not_raise(way, value: float) -> None:
    cost, mask = mixed(3, 5, 6, 3)
    for bad in (cost.masked_fill(torch.rand(cost.shape) < 0.3, value), torch.full_like(cost, value)):
        found = way(bad, mask)
        assert int(found.min()) >= 0
        assert int(found.max()) < 6
    one = mask[:, :1] | True
    assert match(torch.full_like(cost[..., :1], value), one).shape == (5, 1)


@pytest.mark.parametrize("way", [match_by_scores, match_by_scipy])
def test_a_slot_that_is_nan_is_matched_so_that_the_loss_tells(way) -> None:
    torch.manual_seed(0)
    spans, target = torch.rand(4, 6, 2), torch.rand(4, 3, 2)
    spans[:, 4] = math.nan
    mask = torch.ones(4, 3, dtype=torch.bool)
    distance = torch.cdist(spans, target, p=1)
    slots = way(distance, mask)
    assert (slots == 4).any(dim=1).all()
    assert math.isnan(span_loss(distance.gather(1, slots.unsqueeze(1)).squeeze(1)[None], mask / mask.sum()))


def test_more_windows_than_are_scored_one_by_one_go_to_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device other than the CPU; "meta" stands for one, as far as the choice goes."""
    chosen: list[str] = []
    monkeypatch.setattr(matching, "match_by_scipy", lambda *_: chosen.append("scipy"))
    monkeypatch.setattr(matching, "match_by_scores", lambda *_: chosen.append("scores"))
    for slots, windows in ((10, 5), (10, 6), (4, 5), (4, 4)):
        match(torch.empty(2, slots, windows, device="meta"), torch.empty(2, windows, device="meta"))
    match(torch.empty(2, 10, 5), torch.empty(2, 5))
    assert chosen == ["scores", "scipy", "scipy", "scores", "scipy"]


def test_scored_assignments_are_the_worked_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criterion, "match", match_by_scores)
    errors = compare(GOLDEN / "model" / "qvhighlights_clip.npz")
    assert errors.matching
    assert errors.losses <= OUTPUT_TOLERANCE
