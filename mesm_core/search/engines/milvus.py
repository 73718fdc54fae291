"""The Milvus engine: a collection in a local file (Milvus Lite) or on a server or cluster, by the same code.

Vectors are kept in float32, which represents the float16 values exactly. A local file is searched exactly (FLAT). On a
server the index is HNSW, so a query may miss a few of the best segments. Unlike the exact engine, a reader that stays
open sees changes of the collection at once; segments of videos that are not in its manifest are ignored.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import numpy as np

from mesm_core.errors import ConfigError, DataError, OutputError
from mesm_core.inputs import file_size, reason
from mesm_core.places import explained
from mesm_core.search.engines.protocol import SegmentHit
from mesm_core.search.manifest import State
from mesm_core.search.segments import Segments

if TYPE_CHECKING:
    from pymilvus import MilvusClient

LOCAL_FILE = "milvus.db"
"""Name of the local file in an index, where no URI is given."""
TOKEN_VARIABLE = "MESM_MILVUS_TOKEN"
SECONDS = 20.0
"""Time limit of a call, in which pymilvus tries again if the server does not answer."""
PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try of a call that failed."""
INDEX_PAUSE = 0.3
"""Seconds between two questions whether the server has built the index."""
BATCH_ROWS, READ_ROWS = 1000, 8192
"""Rows that are sent, and that are read, in one call."""
BATCH_VIDEOS = 1000
"""Ids in one filter expression."""
MOST_HITS = 16_384
"""Milvus' limit of the results of a search."""
LINKS, BUILD_WIDTH, SEARCH_WIDTH = 32, 128, 4096
"""HNSW's M, efConstruction and least ef (Malkov and Yashunin 2018), chosen for recall (benchmarks/search.md)."""
ID_BYTES = 64

Value = TypeVar("Value")
_users: Counter[str] = Counter()
"""Number of open engines of each local file; its server ends with the last one."""


class MilvusEngine:
    """The collection of an index.

    Args:
        folder: of the index; state: from ``start`` or ``save``; width: of vectors.

    Raises:
        ConfigError: pymilvus or Milvus Lite is not installed; DataError: the collection does not exist any more;
            OutputError: the server does not answer.
    """

    def __init__(self, folder: Path, state: State, *, width: int) -> None:
        self._given_uri = state.get("uri")
        self._uri = str(self._given_uri or (folder / LOCAL_FILE).absolute())
        self._local = "://" not in self._uri
        self._collection = str(state["collection"])
        self._rows = int(state.get("rows", 0))
        self._width = width
        self._pending: list[dict[str, Any]] = []
        self._inserted = False
        self._removed: set[str] = set()
        _require_package(local=self._local)
        self._client = self._connect()
        self._made = bool(self._try(lambda: self._client.has_collection(self._collection)))
        if self._made:
            self._try(lambda: self._client.load_collection(self._collection))
        elif self._rows:
            self.close()
            raise DataError(
                f"The collection {self._collection} of the index does not exist at {self._uri}.",
                hint="Restore it, or build the index again in another folder.",
            )

    @staticmethod
    def start(uri: str | None) -> State:
        """Return the state of a new collection.

        Raises:
            ConfigError: pymilvus or Milvus Lite is not installed, or the URI is not valid.
        """
        state: State = {"collection": f"mesm_{uuid4().hex[:16]}"}
        if uri is not None:
            if "://" not in uri:
                if not uri.endswith(".db"):
                    raise ConfigError(
                        f"--uri {uri} is neither an address nor a file whose name ends in .db.",
                        hint="For example http://localhost:19530, or vectors.db.",
                    )
                uri = str(Path(uri).absolute())
            state["uri"] = uri
        _require_package(local="://" not in (uri or ""))
        return state

    def query(self, vector: np.ndarray, top: int, videos: Collection[str] | None = None) -> list[SegmentHit]:
        """Return the most similar segments; see ``Engine.query``. At most ``MOST_HITS`` are returned."""
        if not self._made:
            return []
        limit = min(top, MOST_HITS)
        filters = [""] if videos is None else [_among(batch) for batch in _batches(sorted(videos), BATCH_VIDEOS)]
        hits = [hit for expression in filters for hit in self._search(vector, limit, expression)]
        return sorted(hits, key=lambda hit: (-hit.similarity, hit.video, hit.start))[:top]

    def counts(self) -> Mapping[str, int]:
        """Return the number of stored segments of each video."""
        return Counter(str(row["video"]) for row in self._every(["video"]))

    def vectors(self) -> Iterator[tuple[str, Segments]]:
        """Yield the segments of each video."""
        counts = self.counts()
        partial: dict[str, list[dict[str, Any]]] = {}
        for row in self._every(["id", "video", "start", "end", "vector"]):
            rows = partial.setdefault(row["video"], [])
            rows.append(row)
            if len(rows) == counts[row["video"]]:
                yield row["video"], _segments(partial.pop(row["video"]))

    def add(self, video: str, segments: Segments) -> None:
        """Store the segments of a video that has none; one that is to be replaced loses its old ones first."""
        if video in self._removed:
            self._delete([video])
            self._removed.discard(video)
        vectors = segments.vectors.astype(np.float32)
        for number, (vector, (start, end)) in enumerate(zip(vectors, segments.spans.tolist(), strict=True)):
            key = f"{video}/{number:07}"
            self._pending.append({"id": key, "video": video, "start": start, "end": end, "vector": vector})
        self._rows += len(segments)
        while len(self._pending) >= BATCH_ROWS:
            self._insert(self._pending[:BATCH_ROWS])
            del self._pending[:BATCH_ROWS]

    def remove(self, videos: Collection[str]) -> None:
        """Prepare to remove the segments of videos; ``clean`` removes them."""
        for batch in _batches(sorted(videos), BATCH_VIDEOS):
            self._rows -= self._count(_among(batch))
        self._removed |= set(videos)

    def save(self) -> State:
        """Insert and flush the new segments."""
        if self._pending:
            self._insert(self._pending)
            self._pending = []
        if self._made:
            self._try(lambda: self._client.flush(self._collection))
        state: State = {"collection": self._collection, "rows": self._rows}
        return state if self._given_uri is None else state | {"uri": self._given_uri}

    def clean(self, videos: Mapping[str, int]) -> None:
        """Delete the segments of removed videos, and those that a killed process left; let a server build its index."""
        if not self._made:
            return
        self._delete(sorted(self._removed))
        self._removed = set()
        if self._count("") != sum(videos.values()):
            counts = self.counts()
            self._delete(sorted(video for video in counts if video not in videos))
        if self._inserted and not self._local:
            self._load_index()

    def check(self) -> list[str]:
        """Return nothing: Milvus verifies its own files."""
        return []

    def size(self) -> int:
        """Return the size of the local file in bytes, or 0 for a server."""
        path = Path(self._uri)
        return sum(file_size(file) for file in path.rglob("*")) if self._local and path.is_dir() else 0

    def destroy(self) -> None:
        """Remove the collection, and the local file if it lies in the index."""
        if self._made:
            self._try(lambda: self._client.drop_collection(self._collection))
            self._made = False
        if self._given_uri is None:
            self.close()
            with explained(Path(self._uri)):
                shutil.rmtree(self._uri, ignore_errors=True)

    def close(self) -> None:
        """Close the connection; a local server ends with its last engine."""
        if self._client is None:
            return
        self._client.close()
        self._client = None
        if self._local:
            _users[self._uri] -= 1
            if not _users[self._uri]:
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self._uri)

    def _connect(self) -> Any:
        from pymilvus import MilvusClient

        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # errors are reported by ``_try``
        logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
        token = os.environ.get(TOKEN_VARIABLE, "")
        client: MilvusClient = self._try(lambda: MilvusClient(uri=self._uri, token=token, timeout=SECONDS))
        if self._local:
            _users[self._uri] += 1
        return client

    def _create(self) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=ID_BYTES)
        schema.add_field("video", DataType.VARCHAR, max_length=ID_BYTES)
        schema.add_field("start", DataType.DOUBLE)
        schema.add_field("end", DataType.DOUBLE)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._width)
        indexes = self._client.prepare_index_params()
        if self._local:
            indexes.add_index("vector", index_type="FLAT", metric_type="IP")
        else:
            build = {"M": LINKS, "efConstruction": BUILD_WIDTH}
            indexes.add_index("vector", index_type="HNSW", metric_type="IP", params=build)
        self._try(
            lambda: self._client.create_collection(
                self._collection, schema=schema, index_params=indexes, consistency_level="Strong"
            )
        )
        self._made = True

    def _load_index(self) -> None:
        """Wait until the server has built the index of the new rows, and load it.

        Until then the server uses an interim index, which found a quarter of the best segments (benchmarks/search.md),
        and which it replaces late by itself.
        """
        while self._try(lambda: self._client.describe_index(self._collection, "vector")).get("pending_index_rows"):
            time.sleep(INDEX_PAUSE)
        self._try(lambda: self._client.release_collection(self._collection))
        self._try(lambda: self._client.load_collection(self._collection))
        self._inserted = False

    def _insert(self, rows: list[dict[str, Any]]) -> None:
        if not self._made:
            self._create()
        self._inserted = True
        # An upsert, so that a second try after a lost answer stores no row twice.
        self._try(lambda: self._client.upsert(self._collection, rows))

    def _search(self, vector: np.ndarray, limit: int, expression: str) -> Iterator[SegmentHit]:
        (found,) = self._try(
            lambda: self._client.search(
                self._collection,
                [vector],
                filter=expression,
                limit=limit,
                output_fields=["video", "start", "end"],
                search_params={} if self._local else {"params": {"ef": max(SEARCH_WIDTH, 2 * limit)}},
            )
        )
        for hit in found:
            entity = hit["entity"]
            yield SegmentHit(str(entity["video"]), float(entity["start"]), float(entity["end"]), float(hit["distance"]))

    def _every(self, fields: list[str]) -> Iterator[dict[str, Any]]:
        """Yield some fields of all rows, in the order of their ids."""
        if not self._made:
            return
        rows = self._try(
            lambda: self._client.query_iterator(self._collection, batch_size=READ_ROWS, output_fields=fields)
        )
        try:
            while batch := self._try(rows.next):
                yield from batch
        finally:
            rows.close()

    def _count(self, expression: str) -> int:
        if not self._made:
            return 0
        (row,) = self._try(lambda: self._client.query(self._collection, filter=expression, output_fields=["count(*)"]))
        return int(row["count(*)"])

    def _delete(self, videos: Collection[str]) -> None:
        for batch in _batches(list(videos), BATCH_VIDEOS):
            self._try(partial(self._client.delete, self._collection, filter=_among(batch)))

    def _try(self, call: Callable[[], Value]) -> Value:
        """Return the result of a call, which is repeated if it fails.

        Raises:
            OutputError: the last try failed.
        """
        import grpc
        from pymilvus.exceptions import MilvusException

        for pause in (*PAUSES, None):
            try:
                return call()
            except (MilvusException, grpc.RpcError, OSError) as error:
                if pause is None:
                    what = getattr(error, "message", None) or reason(error)
                    raise OutputError(
                        f"Milvus at {self._uri} failed: {str(what).rstrip('.')}.",
                        hint="Is the server running, and the local file used by no other process? The index is as it "
                        "was; repeat the command.",
                    ) from error
                time.sleep(pause)
        raise AssertionError


def _require_package(*, local: bool) -> None:
    from importlib.util import find_spec

    missing = [name for name in ("pymilvus", *(["milvus_lite"] if local else [])) if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The engine milvus needs the package {' and '.join(missing)}, which is not installed.",
            hint="pip install 'mesm[milvus]'",
        )


def _segments(rows: list[dict[str, Any]]) -> Segments:
    rows = sorted(rows, key=lambda row: str(row["id"]))
    vectors = np.array([row["vector"] for row in rows], np.float32).astype(np.float16)
    return Segments(vectors, np.array([(row["start"], row["end"]) for row in rows], np.float64))


def _among(videos: Collection[str]) -> str:
    """Return a filter expression for the segments of some videos; their ids are hexadecimal."""
    return f"video in [{', '.join(repr(video) for video in videos)}]"


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start_ in range(0, len(items), size):
        yield items[start_ : start_ + size]
