"""``mesm search``: results on the screen and in files, filters, trained models, and wrong input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mesm_core.build import build_device, build_sentences
from mesm_core.search import Index
from mesm_core.search.corpus import BOUND, STAGE_ONE, STAGE_TWO
from tests.cli.own_model import train_model
from tests.video.made import film

ROWS = ["--clip-len", "1", "--segment", "4", "--device", "cpu"]
QUERY = "The man cuts a pan."


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    """A folder with two videos and their index."""
    folder = tmp_path_factory.mktemp("collection")
    film(folder / "long.mp4", 12)
    film(folder / "short.mp4", 5)
    return folder


@pytest.fixture
def built(mesm: Any, here: Path, zero: list[object], collection: Path) -> Path:
    done = mesm("index", "build", "i", collection / "long.mp4", collection / "short.mp4", *ROWS, *zero)
    assert done.code == 0, done.err
    return here / "i"


def test_a_sentence_gives_moments_of_several_videos(mesm: Any, built: Path, zero: list[object]) -> None:
    done = mesm("search", "i", QUERY, *zero, "--device", "cpu")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == QUERY
    assert lines[1].split() == ["video", "start", "end", "similarity"]
    assert {line.split()[1] for line in lines[3:] if line} == {"long", "short"}
    assert "never trained on moments" in " ".join(done.err.split())
    found = json.loads(mesm("search", "i", QUERY, "a dog", *zero, "--json", "--top", 2).out)
    assert [result["query"] for result in found["results"]] == [QUERY, "a dog"]
    assert (found["stage"], found["method"], found["model"]) == ("two", "zero-shot", None)
    for result in found["results"]:
        assert len(result["moments"]) == 2
        for moment in result["moments"]:
            assert 0 <= moment["start"] < moment["end"] <= 12.01
            assert Path(moment["video"]).is_file()
            assert moment["confidence"] is None


def test_results_are_those_of_an_index_of_planted_features(
    mesm: Any, here: Path, archive: Path, zero: list[object]
) -> None:
    (vector,) = build_sentences(archive, device=build_device("cpu")).embed([QUERY])
    rng = np.random.default_rng(0)
    with h5py.File("planted.hdf5", "w") as file:
        for name in ("a", "b", "c"):
            rows = rng.normal(size=(60, 512))
            if name == "b":
                rows[20:31] += 60 * vector
            file[name] = rows.astype(np.float16)
            file[name].attrs.update({"backbone": "clip-b32", "clip_len": 1.0, "duration": 60.0})
    assert mesm("index", "build", "i", "planted.hdf5").code == 0
    for stage, least in (("one", 0.5), ("two", 0.8)):
        done = mesm("search", "i", QUERY, *zero, "--json", "--stage", stage)
        assert done.code == 0, done.err
        best = json.loads(done.out)["results"][0]["moments"][0]
        together = min(best["end"], 31) - max(best["start"], 20)
        assert best["name"] == "b"
        assert together / (max(best["end"], 31) - min(best["start"], 20)) > least
    done = mesm("search", "i", "--like", "b@20-25", "--cut", "clips")
    assert done.code == 0, done.err
    assert "cannot be cut, since the index has features without their video" in " ".join(done.err.split())


def test_results_are_written_as_files_clips_and_a_page(mesm: Any, built: Path, zero: list[object], here: Path) -> None:
    words = ["search", "i", QUERY, *zero, "--top", 3, "--stage", "one"]
    done = mesm(*words, "-o", "r.csv", "--cut", "clips", "--page", "p.html")
    assert done.code == 0, done.err
    with Path("r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2"]
    clips = sorted(path.name for path in Path("clips").iterdir())
    assert [name[:3] for name in clips] == ["01_", "02_"]
    assert Path(rows[0]["video"]).stem in clips[0]
    text = Path("p.html").read_text()
    assert text.count("<video") == 2
    refused = mesm(*words, "-o", "r.csv")
    assert (refused.code, "already exists" in refused.err) == (2, True)
    for kept in (Path(rows[0]["video"]), *(path for path in Path("i").rglob("*") if path.is_file())):
        before = kept.read_bytes()
        over = mesm(*words, "-o", kept, "--format", "csv", "--overwrite")
        assert (over.code, kept.read_bytes()) == (2, before), kept


def test_videos_of_the_same_name_are_told_apart(mesm: Any, here: Path, zero: list[object], collection: Path) -> None:
    for folder, video in (("summer", "long"), ("winter", "short")):
        (here / folder / "day").mkdir(parents=True)
        (here / folder / "day" / "clip.mp4").write_bytes((collection / f"{video}.mp4").read_bytes())
    assert mesm("index", "build", "i", "summer", "winter", *ROWS, *zero).code == 0
    done = mesm("search", "i", QUERY, *zero, "--top", 2)
    assert done.code == 0, done.err
    assert {line.split()[1] for line in done.out.splitlines()[2:]} == {"summer/day/clip.mp4", "winter/day/clip.mp4"}


def test_a_moment_is_compared_with_others_without_weights(mesm: Any, built: Path) -> None:
    done = mesm("search", "i", "--like", "long.mp4@0-3", "--json", "--videos", "short*")
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)["results"]
    assert {moment["name"] for moment in result["moments"]} == {"short"}
    assert mesm("search", "i", QUERY, "--like", "long@0-3").code == 2


def test_queries_come_from_a_file_or_a_pipe(mesm: Any, built: Path, zero: list[object]) -> None:
    Path("q.txt").write_text('a dog\n{"query": "a cat", "vid": "anywhere"}\n')
    found = json.loads(mesm("search", "i", "--queries", "q.txt", *zero, "--json", "--since", "2000-01-01").out)
    assert [result["query"] for result in found["results"]] == ["a dog", "a cat"]


def test_a_trained_model_answers_with_the_features_of_the_index(
    mesm: Any, built: Path, zero: list[object], archive: Path, tmp_path: Path
) -> None:
    weights = Index.open(built).weights
    about = {"backbone": "clip-b32", "weights": weights, "clip_len": 1.0, "interpolation": "bilinear"}
    model = train_model(tmp_path / "own", backbone="clip_image", width=512, attributes=about, clip_len=1.0)
    done = mesm("search", "i", QUERY, "--model", model, *zero, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["method"], found["model"]) == ("trained", str(model))
    moments = found["results"][0]["moments"]
    assert {moment["name"] for moment in moments} == {"long", "short"}
    located = mesm("locate", moments[0]["video"], QUERY, "--model", model, *zero, "--json", "--device", "cpu")
    (answer,) = json.loads(located.out)["answers"]
    assert [answer["moments"][0][key] for key in ("start", "end")] == pytest.approx(
        [moments[0][key] for key in ("start", "end")], abs=1e-4
    )
    other = tmp_path / "other"
    about = about | {"weights": "0" * 32}
    model = train_model(other, backbone="clip_image", width=512, attributes=about, clip_len=1.0)
    refused = mesm("search", "i", QUERY, "--model", model, *zero)
    assert refused.code == 2
    text = " ".join(refused.err.split())
    assert f"weights {'0' * 12}, but i was built with weights {(weights or '')[:12]}" in text
    assert "mesm index build NEW" in text


def test_weights_of_another_clip_are_refused(mesm: Any, built: Path, tmp_path: Path) -> None:
    from tests.tiny_clip import write_clip

    other = write_clip(tmp_path / "other.pt", seed=1)
    refused = mesm("search", "i", QUERY, "--weights", f"clip-b32={other}")
    assert refused.code == 2
    text = " ".join(refused.err.split())
    assert "The index i was built with clip-b32, weights" in text
    assert "Give the weights of the index" in text


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nowhere", QUERY], "nowhere is not an index"),
        (["i"], "give a query"),
        (["i", "word " * 600], "600 words"),
        (["i", QUERY, "--videos", "x*"], "No video of the index is 'x*'"),
        (["i", QUERY, "--since", "soon"], "'soon' is not a date"),
        (["i", QUERY, "--min-confidence", "0.5"], "calibrat"),
        (["i", QUERY, "--fast"], "it needs --cut DIR"),
        (["i", QUERY, "-o", "x.txt"], "add --format json or csv"),
        (["i", "--like", "long@9-3"], "is not a part of the video"),
        (["i", "--like", "other@1-3"], "No video of the index is 'other'"),
    ],
)
def test_wrong_input_is_refused(mesm: Any, built: Path, zero: list[object], words: list[str], error: str) -> None:
    done = mesm("search", *words, *zero)
    assert done.code == 2
    assert error in " ".join(done.err.replace("│", " ").split())


@pytest.mark.parametrize(("option", "value"), [("--since", "soon"), ("--videos", "x*")])
def test_wrong_filters_are_refused_before_weights_are_asked_for(
    mesm: Any, built: Path, option: str, value: str
) -> None:
    done = mesm("search", "i", QUERY, option, value)
    assert (done.code, value in done.err, "eights" in done.err) == (2, True, False)


def test_a_checkpoint_is_evaluated_on_a_corpus(mesm: Any, trained: Any, tmp_path: Path, archive: Path) -> None:
    with h5py.File(trained.paths.features[0]) as source, h5py.File(tmp_path / "clip_image.hdf5", "w") as file:
        for name, node in source.items():
            file[name] = np.random.default_rng(len(file)).normal(size=(len(node), 512)).astype(np.float16)
            duration = float(node.attrs["duration"])
            file[name].attrs.update({"backbone": "clip-b32", "clip_len": duration / len(node), "duration": duration})
    index = tmp_path / "i"
    built = mesm("index", "build", index, tmp_path / "clip_image.hdf5")
    assert built.code == 0, built.err
    words = ["eval", trained.best, "--split", "test", "--corpus", index, "--weights", f"clip-b32={archive}"]
    found = json.loads(mesm(*words, "--json").out)
    assert found["split"] == "test"
    assert found["recall"][BOUND]["VR@1"] == 100
    assert set(found["recall"]) == {STAGE_ONE, STAGE_TWO, BOUND}
    shown = mesm(*words)
    assert shown.code == 0, shown.err
    assert "right video given" in shown.out
    assert mesm(*words, "--report", "r.html").code == 2
