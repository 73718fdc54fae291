"""The exact engine: half-precision products of a query with all vectors, in memory-mapped files.

The products select candidates. Their similarities are computed again in float32, so the result is that of float32
products of the stored vectors; only the order of equal ones may differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mesm_core.caches import hash_file
from mesm_core.errors import ConfigError, DataError
from mesm_core.files import make_folder
from mesm_core.places import explained
from mesm_core.search.engines.protocol import SegmentHit
from mesm_core.search.engines.shards import DAMAGED, Shard, write_shard
from mesm_core.search.manifest import State
from mesm_core.search.segments import Segments

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "vectors"
"""Folder of the shards in an index, created when it is first written."""
SUFFIX = ".segments"
ERROR = 1.25 * 2.0**-10
"""Bound of the error of a half-precision product of vectors of length 1, summed in float32: the query and the
result are rounded to float16, each with an error of at most 2**-11."""
BLOCK_ROWS = 2**16
"""Rows that are converted to float32 at a time: 128 MiB for a width of 512."""
PENDING_ROWS = 2**16
"""New rows in memory after which they are written to a shard."""
MOST_ROWS = 2**20
"""Rows up to which shards are merged: 1 GiB for a width of 512."""
KEPT_SHARE = 0.7
"""Share of rows in use below which a shard is written again."""


@dataclass
class _Part:
    """A shard with its hash and the videos in it that were removed."""

    shard: Shard
    sha256: str
    dead: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ids = frozenset(self.shard.videos)

    def live(self) -> list[tuple[str, Segments]]:
        """Return the videos that were not removed, with their segments."""
        return [(v, self.shard.segments(n)) for n, v in enumerate(self.shard.videos) if v not in self.dead]

    @property
    def rows(self) -> int:
        """Number of rows in use."""
        counts = np.diff(self.shard.starts)
        return sum(int(n) for v, n in zip(self.shard.videos, counts, strict=True) if v not in self.dead)

    def selected(self, videos: Collection[str] | None) -> np.ndarray | None:
        """Return (n,) bool, True for rows in use that belong to ``videos``; None if all do."""
        if videos is None and not self.dead:
            return None
        chosen = [v not in self.dead and (videos is None or v in videos) for v in self.shard.videos]
        return np.repeat(np.array(chosen, np.bool_), np.diff(self.shard.starts))


class ExactEngine:
    """An engine without approximation and without other programs; its files are shards in one folder.

    Args:
        folder: of the index; state: from ``start`` or ``save``; width: of vectors.

    Raises:
        DataError: a shard is missing or damaged.
    """

    def __init__(self, folder: Path, state: State, *, width: int) -> None:
        self._folder = folder / FOLDER
        self._width = width
        self._next = int(state["next"])
        self._parts = [self._opened(entry) for entry in state["shards"]]
        self._pending: dict[str, Segments] = {}
        self._pending_rows = 0

    @staticmethod
    def start(uri: str | None) -> State:
        """Return the state of a new engine without segments, which has no URI.

        Raises:
            ConfigError: there is a URI.
        """
        if uri is not None:
            raise ConfigError("The engine exact keeps its data in the index: it has no URI.", hint="Leave out --uri.")
        return {"next": 1, "shards": []}

    def query(self, vector: np.ndarray, top: int, videos: Collection[str] | None = None) -> list[SegmentHit]:
        """Return the most similar segments; see ``Engine.query``."""
        import torch

        wanted = torch.from_numpy(np.ascontiguousarray(vector, np.float32))  # (D,)
        masks = [part.selected(videos) for part in self._parts]
        chosen = sum(len(p.shard) if m is None else int(m.sum()) for p, m in zip(self._parts, masks, strict=True))
        if not chosen:
            return []
        for products in (_half_products, _single_products):
            found = [products(part.shard, wanted) for part in self._parts]
            scores = [_masked(values, mask) for values, mask in zip(found, masks, strict=True)]
            rows, exact, error = self._candidates(torch.cat(scores).numpy(), wanted, min(top, chosen))
            if error <= ERROR:  # else the CPU's half-precision products are less exact than expected
                break
        best = np.lexsort((rows, -exact))[:top]
        firsts = self._first_rows()
        return [self._hit(int(rows[number]), float(exact[number]), firsts) for number in best]

    def counts(self) -> Mapping[str, int]:
        """Return the number of stored segments of each video."""
        return {video: len(segments) for part in self._parts for video, segments in part.live()}

    def vectors(self) -> Iterator[tuple[str, Segments]]:
        """Yield the segments of each video."""
        for part in self._parts:
            yield from part.live()

    def add(self, video: str, segments: Segments) -> None:
        """Prepare to store the segments of a video that has none.

        Raises:
            OutputError: segments could not be written.
        """
        self._pending[video] = segments
        self._pending_rows += len(segments)
        if self._pending_rows >= PENDING_ROWS:
            self._write_pending()

    def remove(self, videos: Collection[str]) -> None:
        """Prepare to remove the segments of videos."""
        for video in videos:
            self._pending.pop(video, None)
        for part in self._parts:
            part.dead |= part.ids.intersection(videos)

    def save(self) -> State:
        """Write new segments, merge small shards, and write shards again that have many removed videos.

        Raises:
            OutputError: a shard could not be written.
        """
        self._write_pending()
        parts = []
        for group in merged_groups([part.rows for part in self._parts], most=MOST_ROWS):
            chosen = [self._parts[number] for number in group]
            if len(group) > 1 or chosen[0].rows < KEPT_SHARE * len(chosen[0].shard):
                chosen = [self._written([entry for part in chosen for entry in part.live()])]
            parts += chosen
        self._parts = parts
        shards = [
            {"file": p.shard.path.name, "size": p.shard.size, "sha256": p.sha256, "dead": sorted(p.dead)}
            for p in self._parts
        ]
        return {"next": self._next, "shards": shards}

    def clean(self, videos: Mapping[str, int]) -> None:
        """Remove shards that are not part of the state, and files that a killed process left."""
        used = {part.shard.path.name for part in self._parts}
        with explained(self._folder):
            for path in [*self._folder.glob(f"*{SUFFIX}"), *self._folder.glob(".*.part")]:
                own = path.suffix != SUFFIX or path.stem.isdecimal()  # others were put there by somebody else
                if own and path.name not in used:
                    path.unlink(missing_ok=True)

    def check(self) -> list[str]:
        """Return the shards with another content than was written."""
        changed = [part for part in self._parts if hash_file(part.shard.path) != part.sha256]
        return [f"{part.shard.path} was changed after it was written: its hash differs" for part in changed]

    def size(self) -> int:
        """Return the size of the shards in bytes."""
        return sum(part.shard.size for part in self._parts)

    def destroy(self) -> None:
        """Remove all shards."""
        self._parts, self._pending = [], {}
        self.clean({})
        if self._folder.is_dir():
            with explained(self._folder):
                self._folder.rmdir()

    def close(self) -> None:
        """Forget the shards; the system closes the files when nothing refers to them."""
        self._parts = []

    def _opened(self, entry: Mapping[str, object]) -> _Part:
        shard = Shard(self._folder / str(entry["file"]), width=self._width)
        if shard.size != entry["size"]:
            raise DataError(
                f"{shard.path} has {shard.size:,} bytes; the index was saved with {entry['size']:,}.", hint=DAMAGED
            )
        dead = entry["dead"]
        if not isinstance(dead, list):
            raise TypeError("the removed videos are no list")
        return _Part(shard, str(entry["sha256"]), set(dead))

    def _write_pending(self) -> None:
        if self._pending:
            self._parts.append(self._written(list(self._pending.items())))
            self._pending, self._pending_rows = {}, 0

    def _written(self, videos: Sequence[tuple[str, Segments]]) -> _Part:
        make_folder(self._folder)
        path = self._folder / f"{self._next:06}{SUFFIX}"
        self._next += 1
        write_shard(path, videos, width=self._width)
        return _Part(Shard(path, width=self._width), hash_file(path))

    def _candidates(self, scores: np.ndarray, wanted: Tensor, top: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the rows that may be among the best, their exact products, and the largest error of the scores.

        Args:
            scores: (rows,) of all shards one after the other.
        """
        least = np.partition(scores, len(scores) - top)[len(scores) - top] - 2 * ERROR
        rows = np.flatnonzero(scores >= least)
        blocks = np.array_split(rows, len(rows) // BLOCK_ROWS + 1)
        exact = np.concatenate([self._exact(block, wanted) for block in blocks])
        return rows, exact, float(np.abs(exact - scores[rows]).max())

    def _exact(self, rows: np.ndarray, wanted: Tensor) -> np.ndarray:
        """Return the float32 products of some rows, in rising order, with the query."""
        firsts = self._first_rows()
        edges = np.searchsorted(rows, firsts)
        vectors = [
            part.shard.vectors[rows[a:b] - first]
            for part, first, a, b in zip(self._parts, firsts[:-1], edges[:-1], edges[1:], strict=True)
        ]
        products: np.ndarray = np.concatenate(vectors).astype(np.float32) @ wanted.numpy()
        return products

    def _first_rows(self) -> np.ndarray:
        """Return the first row of each shard, and the number of all rows."""
        return np.cumsum([0, *(len(part.shard) for part in self._parts)])

    def _hit(self, row: int, similarity: float, firsts: np.ndarray) -> SegmentHit:
        number = int(np.searchsorted(firsts, row, side="right")) - 1
        shard, inside = self._parts[number].shard, row - int(firsts[number])
        video = shard.videos[int(np.searchsorted(shard.starts, inside, side="right")) - 1]
        start, end = shard.spans[inside].tolist()
        return SegmentHit(video, start, end, similarity)


def merged_groups(rows: Sequence[int], *, most: int) -> list[list[int]]:
    """Return which shards to merge: groups of neighbours, so that each has twice as many rows as the next one.

    There are few shards then, and each row is written again only a few times. Shards without rows are left out.

    Args:
        rows: number of rows of each shard; most: larger groups are not formed.

    >>> merged_groups([100, 30, 20, 5], most=1000), merged_groups([100, 0, 60], most=120)
    ([[0], [1, 2], [3]], [[0], [2]])
    """
    groups: list[tuple[list[int], int]] = []
    for number, count in enumerate(rows):
        if not count:
            continue
        groups.append(([number], count))
        while len(groups) > 1 and groups[-2][1] < 2 * groups[-1][1] and groups[-2][1] + groups[-1][1] <= most:
            numbers, added = groups.pop()
            groups[-1] = (groups[-1][0] + numbers, groups[-1][1] + added)
    return [numbers for numbers, _ in groups]


def _half_products(shard: Shard, wanted: Tensor) -> Tensor:
    """Return the (n,) products of all rows with the query, computed in float16."""
    import torch

    # As a linear layer it takes half the time of a product of matrix and vector (benchmarks/search.md).
    return torch.nn.functional.linear(wanted.half()[None], torch.from_numpy(shard.vectors))[0].float()


def _single_products(shard: Shard, wanted: Tensor) -> Tensor:
    """Return the (n,) products of all rows with the query, computed in float32."""
    import torch

    vectors = torch.from_numpy(shard.vectors)
    starts = range(0, len(vectors), BLOCK_ROWS)
    return torch.cat([vectors[start : start + BLOCK_ROWS].float() @ wanted for start in starts])


def _masked(scores: Tensor, mask: np.ndarray | None) -> Tensor:
    """Return the scores with -inf for the rows that are not selected."""
    import torch

    return scores if mask is None else scores.masked_fill(~torch.from_numpy(mask), -torch.inf)
