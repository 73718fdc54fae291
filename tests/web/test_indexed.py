"""The videos of an index as a collection."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mesm_core.errors import DataError, OutputError, TextError
from mesm_core.search import Searcher
from mesm_core.search.manifest import Kept, Network
from mesm_core.search.searcher import MomentModel
from mesm_core.search.writer import changing
from mesm_core.web import opening
from mesm_core.web.collection import AwayError, Progress
from mesm_core.web.indexed import IndexCollection
from mesm_core.web.opening import plan_collection
from mesm_core.web.workers import Cancel
from tests.search.made import EMPTY, WIDTH
from tests.search.planted import LENGTHS, Halves, Sentences, planted_index


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    return Searcher(planted_index(tmp_path / "i"), Sentences())


def test_a_search_returns_the_moments_of_the_index(searcher: Searcher) -> None:
    collection = IndexCollection(searcher, ["A note."])
    assert {video.name for video in collection.videos().values()} == {f"{name}.mp4" for name in LENGTHS}
    assert (collection.calibrated, collection.notes) == (False, ("A note.",))
    found = collection.search("a door opens", top=3)
    (results,) = searcher.search(["a door opens"], top=3)
    assert found.searched == 4
    assert [(hit.video, hit.moment.start, hit.similarity) for hit in found.hits] == [
        (one.video.id, one.start, one.similarity) for one in results.found
    ]
    assert found.hits[0].video == "kitchen"
    with pytest.raises(TextError):
        collection.search(" ", top=3)


def test_an_answer_about_a_video_has_its_saliency(searcher: Searcher) -> None:
    collection = IndexCollection(searcher)
    assert collection.prepared("kitchen")
    located = collection.locate("kitchen", "a door opens")
    assert located is not None
    (answer,) = located.answers
    assert (located.duration, len(answer.saliency)) == (31.0, 31)
    best = answer.moments[0]
    assert abs(best.start - 12) < 2
    assert abs(best.end - 20) < 2


def test_a_model_answers_with_confidence(searcher: Searcher) -> None:
    model = MomentModel(Halves(), ("clip-b32",), longest=60.0, part=24.0)
    collection = IndexCollection(Searcher(searcher.index, Sentences(), model))
    assert collection.calibrated
    located = collection.locate("kitchen", "a door opens")
    assert located is not None
    assert located.answers[0].confidences is not None
    assert all(hit.moment.confidence is not None for hit in collection.search("a door opens", top=3).hits)


def test_a_changed_index_is_opened_again(searcher: Searcher) -> None:
    collection = IndexCollection(searcher)
    with changing(searcher.index.path) as writer:
        writer.remove({"kitchen"})
        writer.commit()
    found = collection.search("a door opens", top=3)
    assert found.searched == 3
    assert "kitchen" not in collection.videos()
    with pytest.raises(DataError, match="removed from the index"):
        collection.locate("kitchen", "a door opens")


def test_an_index_that_is_gone_for_a_while_is_found_again(searcher: Searcher, tmp_path: Path) -> None:
    collection = IndexCollection(searcher)
    searcher.index.path.rename(tmp_path / "elsewhere")
    with pytest.raises(AwayError, match=r"index\.json"):
        collection.search("a door opens", top=3)
    (tmp_path / "elsewhere").rename(searcher.index.path)
    assert collection.search("a door opens", top=3).hits


def test_an_engine_that_is_away_is_told(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OutputError("Milvus failed.", hint="Is the server running?")

    monkeypatch.setattr(searcher.index.engine, "query", away)
    with pytest.raises(AwayError, match="Milvus failed"):
        IndexCollection(searcher).search("a door opens", top=3)


def test_an_index_that_was_built_again_with_other_weights_is_not_searched(searcher: Searcher, tmp_path: Path) -> None:
    collection = IndexCollection(searcher)
    shutil.rmtree(searcher.index.path)
    with changing(searcher.index.path, replace(EMPTY, networks=(Network("clip-b32", "cd" * 16, WIDTH),))):
        pass
    with pytest.raises(AwayError, match="cdcdcdcdcdcd"):
        collection.search("a door opens", top=3)


def forget_videos(path: Path, *ids: str) -> None:
    """Let an index have the features of videos in files, without the videos."""
    with changing(path) as writer:
        for id_ in ids:
            entry = writer.videos[id_]
            writer.relocate(replace(entry, kept=(Kept("clip-b32", str(entry.path), entry.name),)))
        writer.commit()


def test_features_without_their_video_are_counted_or_refused(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = searcher.index.path
    monkeypatch.setattr(opening, "searcher_of", lambda planned, **_: Searcher(planned.index, Sentences()))
    assert not [note for note in plan_collection([str(path)]).open().notes if "not shown" in note]
    forget_videos(path, "kitchen")
    collection = plan_collection([str(path)]).open()
    assert collection.notes[-1] == "1 video of the index is not shown, since the index has only its features."
    assert "kitchen" not in collection.videos()
    forget_videos(path, *LENGTHS)
    with pytest.raises(DataError, match="has features without their videos"):
        plan_collection([str(path)])


def test_nothing_is_prepared_or_uploaded(searcher: Searcher, tmp_path: Path) -> None:
    collection = IndexCollection(searcher)
    seen: list[Progress] = []
    assert collection.prepare(["kitchen"], progress=seen.append, cancel=Cancel()) == {}
    assert seen == [Progress(1.0, 1)]
    with pytest.raises(DataError, match="cannot be uploaded"):
        collection.add(tmp_path / "a.mp4", "a.mp4")
    collection.close()
    with pytest.raises(DataError, match="is an index, which is served alone"):
        plan_collection([str(searcher.index.path)], uploads=tmp_path)
