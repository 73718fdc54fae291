"""The Milvus engine, with Milvus Lite; also with a server if ``$MESM_MILVUS_URI`` names one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mesm_core.errors import ConfigError, OutputError
from mesm_core.search import Index
from mesm_core.search.checking import Findings, verify
from mesm_core.search.engines import milvus, new_state
from mesm_core.search.manifest import read_manifest
from mesm_core.search.moving import move
from mesm_core.search.segments import Segments
from mesm_core.search.writer import changing
from tests.search.made import EMPTY, WIDTH, best, content, put

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

QUERY = np.random.default_rng(5).normal(size=WIDTH).astype(np.float32)
SERVER = os.environ.get("MESM_MILVUS_URI")
URIS = [None, *([SERVER] if SERVER else [])]


@pytest.mark.parametrize("uri", URIS)
def test_an_index_moves_to_milvus_and_back_and_loses_nothing(tmp_path: Path, uri: str | None) -> None:
    path = tmp_path / "i"
    made = put(path, *"abcdefgh")
    before = content(Index.open(path))
    expected = Index.open(path).query(QUERY, 20)
    *_, last = move(path, "milvus", uri)
    assert last == 16
    assert not (path / "vectors").exists()
    index = Index.open(path)
    assert content(index) == before
    hits = index.query(QUERY, 20)
    assert [(hit.video, hit.start, hit.end) for hit in hits] == [(hit.video, hit.start, hit.end) for hit in expected]
    assert [hit.similarity for hit in hits] == pytest.approx(best(made, QUERY, 20), abs=1e-6)
    assert {hit.video for hit in index.query(QUERY, 99, {"b", "d"})} == {"b", "d"}
    index.close()

    put(path, "x", "a")
    with changing(path) as writer:
        writer.remove({"b"})
        writer.commit()
    index = Index.open(path)
    assert content(index).keys() == {*"acdefghx"}
    *_, found = verify(index)
    assert found == Findings((), tuple(index.videos.values()), (), 0, 0)
    index.close()
    with pytest.raises(ConfigError, match="has the engine milvus already"):
        list(move(path, "milvus", uri))

    list(move(path, "exact"))
    assert content(Index.open(path)) == {v: c for v, c in before.items() if v != "b"} | {
        "x": content(Index.open(path))["x"]
    }
    assert not (path / milvus.LOCAL_FILE).exists()


@pytest.mark.parametrize("uri", URIS)
def test_milvus_finds_nearly_all_of_the_best(tmp_path: Path, uri: str | None) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = Segments(vectors.astype(np.float16), np.arange(6000, dtype=np.float64).reshape(-1, 2))
    engine = milvus.MilvusEngine(tmp_path, new_state("milvus", uri), width=64)
    engine.add("a", made)
    engine.save()
    engine.clean({"a": len(made)})
    found = []
    for query in rng.normal(size=(10, 64)).astype(np.float32):
        hits = {hit.start for hit in engine.query(query / np.linalg.norm(query), 100)}
        products = made.vectors.astype(np.float32) @ query
        found.append(len(hits & {2.0 * row for row in np.argsort(-products)[:100]}) / 100)
    assert np.mean(found) >= 0.98
    engine.destroy()


def test_segments_that_a_killed_process_left_are_ignored_and_removed(tmp_path: Path) -> None:
    path, manifest = tmp_path / "i", replace(EMPTY, engine="milvus", state=new_state("milvus", None))
    made = put(path, "a", "b", manifest=manifest)
    with changing(path) as writer:
        writer.engine.add("c", made["a"])
        writer.engine.save()  # as if the process were killed before the manifest is replaced
    index = Index.open(path)
    assert {hit.video for hit in index.query(QUERY, 1000)} == {"a", "b"}
    assert len(index.query(QUERY, 18)) == 18
    *_, found = verify(index)
    assert isinstance(found, Findings)
    assert (found.problems, found.unlisted) == ((), 1)
    index.close()
    with changing(path):
        pass
    index = Index.open(path)
    assert index.engine.counts().keys() == {"a", "b"}
    index.close()


def test_an_engine_that_is_away_is_tried_again_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "i"
    put(path, "a", "b")
    before = read_manifest(path), content(Index.open(path))
    monkeypatch.setattr(milvus, "SECONDS", 0.2)
    pauses: list[float] = []
    monkeypatch.setattr(milvus.time, "sleep", pauses.append)
    with pytest.raises(OutputError, match=r"Milvus at http://127.0.0.1:9 failed: "):
        list(move(path, "milvus", "http://127.0.0.1:9"))
    assert pauses[:1] == [0.5]
    assert (read_manifest(path), content(Index.open(path))) == before
    with pytest.raises(OutputError, match="Milvus at http"):
        put(
            tmp_path / "new", "a", manifest=replace(EMPTY, engine="milvus", state=new_state("milvus", "http://[::1]:9"))
        )
    assert not (tmp_path / "new" / "index.json").exists()


def test_missing_packages_and_invalid_addresses_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"vectors.txt is neither an address nor a file whose name ends in .db"):
        new_state("milvus", "vectors.txt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package pymilvus and milvus_lite") as caught:
        new_state("milvus", None)
    assert caught.value.hint == "pip install 'mesm[milvus]'"
    with pytest.raises(ConfigError, match="exact keeps its data in the index"):
        new_state("exact", "x.db")
