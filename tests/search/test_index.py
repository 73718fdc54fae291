"""The index: exact queries, changes that are atomic for readers, one writer at a time, and damage."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mesm_core.search.engines.exact as exact
from mesm_core.errors import DataError, FeatureError, MesmError, OutputError
from mesm_core.search import Index
from mesm_core.search.engines.shards import Shard, write_shard
from mesm_core.search.manifest import FILE, read_manifest
from mesm_core.search.segments import pool_segments
from mesm_core.search.writer import changing
from tests.search.made import EMPTY, WIDTH, best, content, put, rows_of

QUERY = np.random.default_rng(5).normal(size=WIDTH).astype(np.float32)


def test_a_query_returns_what_float32_products_of_the_stored_vectors_give(tmp_path: Path) -> None:
    made = put(tmp_path / "i", *(f"v{number:03}" for number in range(60)))
    index = Index.open(tmp_path / "i")
    for top in (1, 7, 100, 5000):
        hits = index.query(QUERY, top)
        assert [hit.similarity for hit in hits] == pytest.approx(best(made, QUERY, top), abs=1e-6)
    for hit in index.query(QUERY * 1e-3, 9):
        (row,) = np.flatnonzero(made[hit.video].spans[:, 0] == hit.start)
        assert made[hit.video].spans[row, 1] == hit.end
        assert made[hit.video].vectors[row].astype(np.float32) @ QUERY / np.linalg.norm(QUERY) == pytest.approx(
            hit.similarity, abs=1e-6
        )


def test_a_query_about_some_videos_finds_only_those(tmp_path: Path) -> None:
    made = put(tmp_path / "i", "a", "b", "c", "d")
    index = Index.open(tmp_path / "i")
    hits = index.query(QUERY, 1000, {"b", "d", "not there"})
    assert [hit.similarity for hit in hits] == pytest.approx(best({v: made[v] for v in "bd"}, QUERY, 1000), abs=1e-6)
    assert index.query(QUERY, 5, set()) == index.query(QUERY, 5, {"x"}) == index.query(QUERY, 0) == []


def test_products_that_are_not_exact_enough_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = put(tmp_path / "i", *"abcdef")
    half = exact._half_products
    monkeypatch.setattr(exact, "_half_products", lambda shard, wanted: half(shard, wanted) * 0.9)
    hits = Index.open(tmp_path / "i").query(QUERY, 5)
    assert [hit.similarity for hit in hits] == pytest.approx(best(made, QUERY, 5), abs=1e-6)


def test_equal_vectors_are_all_found(tmp_path: Path) -> None:
    with changing(tmp_path / "i", EMPTY) as writer:
        writer.commit()
    made = put(tmp_path / "i", "a")
    copies = replace(made["a"], vectors=np.repeat(made["a"].vectors[:1], len(made["a"]), axis=0))
    with changing(tmp_path / "i") as writer:
        writer.add(writer.videos["a"], copies)
        writer.commit()
    hits = Index.open(tmp_path / "i").query(QUERY, 3)
    assert [hit.start for hit in hits] == [0.0, 4.0, 8.0]


def test_a_reader_keeps_the_state_that_it_opened(tmp_path: Path) -> None:
    put(tmp_path / "i", "a", "b")
    old = Index.open(tmp_path / "i")
    before = old.query(QUERY, 100)
    with changing(tmp_path / "i") as writer:
        writer.remove({"a"})
        writer.commit()
    put(tmp_path / "i", "c")
    assert old.query(QUERY, 100) == before
    assert not old.is_current
    new = Index.open(tmp_path / "i")
    assert set(new.videos) == {"b", "c"} == {hit.video for hit in new.query(QUERY, 100)}
    assert new.is_current


def test_readers_beside_a_writer_see_whole_states(tmp_path: Path) -> None:
    put(tmp_path / "i", "first")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [put(tmp_path / "i", f"v{number}") for number in range(12)])
        seen = set()
        while not writing.done():
            index = Index.open(tmp_path / "i")
            hits = index.query(QUERY, 1000)
            assert Counter(hit.video for hit in hits) == {id_: video.segments for id_, video in index.videos.items()}
            seen.add(len(index.videos))
        writing.result()
    assert len(seen) > 1


def test_changes_without_commit_are_lost(tmp_path: Path) -> None:
    put(tmp_path / "i", "a", "b")
    before = content(Index.open(tmp_path / "i"))
    with changing(tmp_path / "i") as writer:
        writer.remove({"a"})
        writer.engine.save()  # as if the process were killed before the manifest is replaced
    assert content(Index.open(tmp_path / "i")) == before
    made = put(tmp_path / "i", "c")
    assert content(Index.open(tmp_path / "i")).keys() == {"a", "b", *made}
    assert {path.name for path in (tmp_path / "i" / "vectors").iterdir()} == {
        shard["file"] for shard in read_manifest(tmp_path / "i").state["shards"]
    }


def test_many_small_additions_and_removals_leave_few_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {}
    for number in range(20):
        made |= put(tmp_path / "i", f"v{number}")
    assert len(read_manifest(tmp_path / "i").state["shards"]) <= 5
    with changing(tmp_path / "i") as writer:
        writer.remove({f"v{number}" for number in range(15)})
        writer.commit()
    index = Index.open(tmp_path / "i")
    kept = {video: each for video, each in made.items() if video in index.videos}
    assert len(kept) == 5
    assert index.engine.size() < 5 * 10 * (WIDTH * 2 + 16) * 2
    assert [hit.similarity for hit in index.query(QUERY, 99)] == pytest.approx(best(kept, QUERY, 99), abs=1e-6)
    assert {path.stem for path in (tmp_path / "i" / "features").iterdir()} == set(kept)


def test_a_removed_video_can_be_added_again(tmp_path: Path) -> None:
    put(tmp_path / "i", "a", "b")
    before = content(Index.open(tmp_path / "i"))
    put(tmp_path / "i", "a")
    assert content(Index.open(tmp_path / "i")) == before


def test_a_second_writer_is_told(tmp_path: Path) -> None:
    put(tmp_path / "i", "a")
    with changing(tmp_path / "i"), pytest.raises(OutputError, match="Another process is changing the index"):
        put(tmp_path / "i", "b")
    put(tmp_path / "i", "b")


def test_kept_features_are_those_that_were_stored(tmp_path: Path) -> None:
    put(tmp_path / "i", "a")
    index = Index.open(tmp_path / "i")
    rows, clip_len = index.features("a")
    assert clip_len == 1.0
    assert rows.dtype == np.float32
    assert np.array_equal(rows, rows_of("a").astype(np.float16))
    with pytest.raises(DataError, match=r"No video of .* has the id 'b'"):
        index.features("b")
    with pytest.raises(FeatureError, match="no features of a by slowfast-r50"):
        index.features("a", "slowfast-r50")
    put(tmp_path / "i", "b")
    (tmp_path / "i" / "features" / "a.npz").unlink()
    with pytest.raises(FeatureError, match="was changed after it was opened"):
        index.features("a")
    with pytest.raises(
        FeatureError, match=r"features of a by clip-b32 in .* are missing or damaged\.\n.*mesm index remove"
    ):
        Index.open(tmp_path / "i").features("a")


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "i", "a")
    index = Index.open(tmp_path / "i")
    with pytest.raises(FeatureError, match="are 32 wide"):
        index.query(np.ones(3))
    for vector in (np.zeros(WIDTH), np.full(WIDTH, np.nan)):
        with pytest.raises(FeatureError, match="zero, or has NaN"):
            index.query(vector)
    with pytest.raises(FeatureError, match=r"weights abababababab, but the weights in w.pt are cdcdcdcdcdcd"):
        index.check_weights("cd" * 16, where="w.pt")
    index.check_weights("ab" * 16, where="w.pt")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", r"cut short\?|Expecting value"),
        (lambda text: text[: len(text) // 2], r"cut short"),
        (lambda text: "[]", "is not the manifest of an index"),
        (
            lambda text: text.replace('"version": 1', '"version": 7'),
            "version 7 of the format; this mesm reads version 1",
        ),
        (lambda text: text.replace('"duration": 40.0', '"duration": "x"'), "is damaged"),
        (lambda text: text.replace('"exact"', '"exakt"'), "No engine is called 'exakt'. Did you mean 'exact'"),
        (lambda text: text.replace('"shards": [', '"shards": [7, '), "the state of its engine is not valid"),
        (lambda text: text.replace('"overlap": 0.5', '"overlap": 1.5'), "settings are not valid"),
    ],
)
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path: Path, damage, message: str) -> None:
    put(tmp_path / "i", "a")
    path = tmp_path / "i" / FILE
    path.write_text(damage(path.read_text()))
    with pytest.raises(MesmError, match=message) as caught:
        Index.open(tmp_path / "i")
    assert str(tmp_path / "i") in str(caught.value)


@pytest.mark.parametrize("name", ["a", "a video with a longer name", "b" * 470])
def test_the_vectors_of_a_shard_begin_64_bytes_before_a_multiple_of_their_size(tmp_path: Path, name: str) -> None:
    made = pool_segments(rows_of(name, width=512), clip_len=1.0, duration=40.0)
    write_shard(tmp_path / "s", [(name, made), ("other", made)], width=512)
    shard = Shard(tmp_path / "s", width=512)
    assert shard.vectors.ctypes.data % 1024 == 1024 - 64
    for number in range(2):
        assert shard.segments(number).vectors.tobytes() == made.vectors.tobytes()
        assert shard.segments(number).spans.tobytes() == made.spans.tobytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: None, "No segments of the index at"),
        (lambda data: b"", "damaged"),
        (lambda data: data[:-1], "bytes instead of"),
        (lambda data: data + b"x", "bytes instead of"),
        (lambda data: b"X" + data[1:], "not a file of segments"),
        (lambda data: data[:8] + b"\xff" * 8 + data[16:], "not a file of segments"),
        (lambda data: data[:16] + b"?" + data[17:], "column"),
        (lambda data: data.replace(b'"width": 32', b'"width": 99'), "not a file of segments"),
    ],
)
def test_a_damaged_shard_is_an_error_that_names_it(tmp_path: Path, damage, message: str) -> None:
    put(tmp_path / "i", "a")
    (path,) = (tmp_path / "i" / "vectors").iterdir()
    changed = damage(path.read_bytes())
    path.unlink() if changed is None else path.write_bytes(changed)
    with pytest.raises(DataError, match=message) as caught:
        Index.open(tmp_path / "i")
    assert str(path) in str(caught.value)


def test_a_changed_byte_of_a_shard_is_found(tmp_path: Path) -> None:
    put(tmp_path / "i", "a")
    assert Index.open(tmp_path / "i").engine.check() == []
    (path,) = (tmp_path / "i" / "vectors").iterdir()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert "hash differs" in Index.open(tmp_path / "i").engine.check()[0]


def test_a_folder_without_index_is_refused_and_stays_empty(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="is not an index"):
            Index.open(path)
        with pytest.raises(DataError, match="is not an index"), changing(path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_has_a_line_per_video(tmp_path: Path) -> None:
    put(tmp_path / "i", "b", "a")
    text = (tmp_path / "i" / FILE).read_text()
    assert [json.loads(line.rstrip(","))["id"] for line in text.splitlines()[1:-1]] == ["a", "b"]


def test_shards_that_a_killed_writer_left_are_removed_and_files_of_others_are_not(tmp_path: Path) -> None:
    put(tmp_path / "i", "a")
    (shard,) = (tmp_path / "i" / "vectors").glob("*.segments")
    left, copied = shard.with_name("000099.segments"), shard.with_name("copy of 1.segments")
    content = shard.read_bytes()
    for path in (left, copied):
        path.write_bytes(content)
    put(tmp_path / "i", "b")
    assert not left.exists()
    assert copied.read_bytes() == content


@pytest.mark.parametrize("key", ["next", "file", "size", "sha256", "dead"])
@pytest.mark.parametrize("value", ["1e308", "1e999", "null", '"x"', "[]", "{}"])
def test_a_changed_state_is_read_or_refused(tmp_path: Path, key: str, value: str) -> None:
    put(tmp_path / "i", "a")
    manifest = json.loads((tmp_path / "i" / FILE).read_text())
    target = manifest["state"] if key == "next" else manifest["state"]["shards"][0]
    target[key] = json.loads(value)
    (tmp_path / "i" / FILE).write_text(json.dumps(manifest))
    try:
        Index.open(tmp_path / "i").query(QUERY, 3)
    except MesmError as error:
        assert str(tmp_path) in str(error)
