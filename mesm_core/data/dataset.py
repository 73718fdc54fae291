"""A split as batches for the model: encoded queries with the features of their videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mesm_core.arrays import pad
from mesm_core.data.collate import Framing, Item, collate
from mesm_core.data.features import FeatureStore, with_endpoints
from mesm_core.data.resident import ResidentFeatures
from mesm_core.data.sampling import Group, eval_batches, make_groups, train_batches
from mesm_core.handover import Handover, running
from mesm_core.text.encoder import TextEncoder
from mesm_core.text.near_duplicates import Described
from mesm_core.types import Batch, Query, TextFeatures, Words

Value = TypeVar("Value")
Pack = Callable[[int], Tensor]
READ_AHEAD = 2


class MomentDataset:
    """Makes batches of a split's queries.

    Args:
        queries: in file order.
        text: text encoder; every distinct sentence is encoded once.
        features: video features.
        framing: how seconds are converted to frames and spans.
        max_gather_size: the most queries of a video that form a group; -1 for no limit.
        readers: threads that make batches; the batches do not depend on their number.
        absent: whether training batches say which negatives have no answer (``Targets.absent``).

    ``resident``: features that are on the device already; batches for it refer to them instead of holding them.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        *,
        text: TextEncoder,
        features: FeatureStore,
        framing: Framing,
        max_gather_size: int,
        readers: int = 1,
        absent: bool = False,
    ) -> None:
        self.queries = tuple(queries)
        self.features = features
        self.readers = readers
        self.resident: ResidentFeatures | None = None
        self._text = text
        self._framing = framing
        self._max_gather_size = max_gather_size
        self._described = Described(self.queries) if absent else None
        self._encoded: dict[str, tuple[TextFeatures, Words]] = {}

    def words(self, sentence: str) -> Words:
        """Return a sentence's tokens with their labels."""
        return self._text.words(sentence)

    def __len__(self) -> int:
        return len(self.queries)

    def plan(self, *, seed: int, epoch: int, batch_size: int) -> list[list[Group]]:
        """Return an epoch's batches as groups of query indices; deterministic given seed and epoch."""
        rng = np.random.default_rng([seed, epoch])
        groups = make_groups(self.queries, max_size=self._max_gather_size, rng=rng)
        videos = [self.queries[group[0]].group for group in groups]
        return train_batches(groups, videos, batch_size=batch_size, rng=rng)

    def train_batch(
        self, groups: Sequence[Group], *, seed: int, epoch: int, index: int, pack: Pack | None = None
    ) -> Batch:
        """Return the ``index``-th batch of an epoch; its random draws depend only on seed, epoch and index.

        Args:
            pack: if given, the batch is in a buffer that it returns, with the features as they are kept.
        """
        return self._batch(groups, rng=np.random.default_rng([seed, epoch, index]), pack=pack)

    def eval_plan(self, *, batch_size: int) -> list[list[Group]]:
        """Return the split in batches of ``batch_size`` groups; deterministic."""
        groups = make_groups(self.queries, max_size=self._max_gather_size, rng=None)
        return eval_batches(groups, batch_size=batch_size)

    def batches(self, plan: Sequence[Sequence[Group]], *, pack: Pack | None = None) -> Iterator[Batch]:
        """Yield the batches of a plan, without targets, read ahead; ``pack`` as for ``train_batch``."""
        return read_ahead(lambda groups: self._batch(groups, pack=pack), plan, threads=self.readers)

    def _batch(
        self, groups: Sequence[Group], *, rng: np.random.Generator | None = None, pack: Pack | None = None
    ) -> Batch:
        items = [[self._item(self.queries[index]) for index in group] for group in groups]
        vids = dict.fromkeys(item.query.vid for group in items for item in group)
        made = partial(collate, items, framing=self._framing, rng=rng, described=self._described)
        if pack is None:
            return made({vid: self.features.get(vid) for vid in vids})
        kept = {vid: self.features.frames(vid) if self.resident is None else self.resident.rows(vid) for vid in vids}
        batch = made({vid: with_endpoints(np.empty((len(frames), 0))) for vid, frames in kept.items()})
        features = torch.from_numpy(pad(list(kept.values()))[0])
        table = None if self.resident is None else self.resident.table
        return replace(batch, features=features, table=table).packed(pack)

    def _item(self, query: Query) -> Item:
        known = self._encoded.get(query.sentence)
        if known is None:
            known = (self._text.features(query.sentence), self._text.words(query.sentence))
            self._encoded[query.sentence] = known
        return Item(query, *known)


def read_ahead(
    make: Callable[[Value], Batch], work: Sequence[Value], *, depth: int = READ_AHEAD, threads: int = 1
) -> Iterator[Batch]:
    """Yield ``make(x)`` for every x of ``work`` in order, computed ahead by threads.

    Args:
        depth: number of batches that wait to be used, at least one for each thread.
    """
    lanes = [Handover[Batch | BaseException | None](max(depth // threads, 1)) for _ in range(threads)]

    def produce(lane: Handover[Batch | BaseException | None], values: Sequence[Value]) -> None:
        try:
            for value in values:
                if not lane.put(make(value)):
                    return
            lane.put(None)
        except BaseException as error:  # raised again by the consumer
            lane.put(error)

    # Thread n makes the batches n, n + threads, …, so their order does not depend on which thread is faster.
    works = [partial(produce, lane, work[number::threads]) for number, lane in enumerate(lanes)]
    with running(works, *lanes):
        for lane in cycle(lanes):
            batch = lane.get()
            if batch is None:
                return
            if isinstance(batch, BaseException):
                raise batch
            yield batch
