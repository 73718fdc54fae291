"""``mesm predict``: features of one video, changed settings, query ids, long videos."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from mesm_cli import render
from mesm_core import MomentRetriever
from mesm_core.errors import ConfigError
from mesm_core.inference.answers import Moment
from tests.cli.small_run import train_words
from tests.conftest import Trained

QUERY = "The man cuts a pan."


def stored(trained: Trained, vid: str = "test-000") -> np.ndarray:
    frames: np.ndarray = np.load(trained.root / "npy" / f"{vid}.npy")
    return frames


def answer_to(result) -> dict[str, object]:
    assert result.code == 0, result.err
    (answer,) = json.loads(result.out)
    return answer


def test_npy_and_npz_files_are_read_directly(mesm, trained: Trained, tmp_path: Path) -> None:
    frames = stored(trained)
    with h5py.File(trained.paths.features[0]) as file:
        seconds = float(file["test-000"].attrs["duration"])
    np.save(tmp_path / "kitchen.npy", frames)
    np.savez(tmp_path / "kitchen.npz", features=frames, duration=seconds)
    np.savez(tmp_path / "other.npz", c3d=frames, duration=np.array([seconds]))
    usual = answer_to(mesm("predict", trained.best, "--video", "test-000", QUERY, "--json"))
    words = ["predict", trained.best, QUERY, "--json", "--features"]
    for name, more in (("kitchen.npy", ["--duration", seconds]), ("kitchen.npz", []), ("other.npz", [])):
        answer = answer_to(mesm(*words, tmp_path / name, *more))
        assert answer["video"] == Path(name).stem
        assert answer["moments"] == usual["moments"]
        assert answer["duration"] == pytest.approx(seconds)
    assert answer_to(mesm(*words, tmp_path / "kitchen.npz", "--video", "kitchen"))["video"] == "kitchen"
    known = mesm(*words, trained.root / "npy" / "test-000.npy")  # the annotations say how long it is
    assert answer_to(known)["duration"] == pytest.approx(seconds, abs=2)


def test_npy_files_are_concatenated(mesm, trained: Trained, tmp_path: Path) -> None:
    frames = stored(trained)
    for folder, part in (("clip", frames[:, :4]), ("slowfast", frames[:, 4:])):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "kitchen.npy", part)
        with h5py.File(tmp_path / f"{folder}.hdf5", "w") as file:
            file["kitchen"] = part
    words = ["predict", trained.best, QUERY, "--duration", "90", "--json", "--video", "kitchen"]
    npy, hdf5 = (
        answer_to(mesm(*words, "--features", tmp_path / f"clip{end}", "--features", tmp_path / f"slowfast{end}"))
        for end in ("/kitchen.npy", ".hdf5")
    )
    assert npy == hdf5
    mixed = mesm(*words, "--features", tmp_path / "clip" / "kitchen.npy", "--features", tmp_path / "slowfast.hdf5")
    assert mixed.code == 2
    assert "cannot be combined with other kinds of files" in " ".join(mixed.err.split())


def test_npz_files_of_other_tools_are_read(mesm, trained: Trained, shared: Path) -> None:
    result = mesm("predict", trained.best, QUERY, "--duration", "9", "--features", shared / "media" / "vid.npz")
    assert result.code == 2
    assert "are 512 wide, but model.video_dim is 12" in result.err


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.npy", {}, "The duration of video 'x' is unknown"),
        ("x.npz", {"a": 1, "b": 2}, "several arrays (a, b)"),
        ("x.npz", {"features": None, "duration": np.array("long")}, "not one number of seconds"),
        ("x.npz", {"features": None, "duration": -3.0}, "must be positive"),
        ("x.npz", b"PK\x03\x04", "cannot be read"),
        ("x.npy", b"no array", "cannot be used"),
        ("x.npy", None, "No feature file at"),
        ("x.mp4", b"\0\0\0\x18ftypmp42", "is a video, not features"),
        ("x.MKV", b"\x1a\x45\xdf\xa3", "is a video, not features"),
        ("x.jpg", b"\xff\xd8\xff", "is an image, not features"),
    ],
)
def test_invalid_features_are_refused(mesm, trained: Trained, tmp_path: Path, name, content, expected) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif name == "x.npz":
        np.savez(path, **{key: np.ones((9, 12)) if value is None else value for key, value in content.items()})
    elif content is not None:
        np.save(path, np.ones((9, 12), np.float32))
    result = mesm("predict", trained.best, QUERY, "--features", path)
    assert result.code == 2, result.err
    assert expected in " ".join(result.err.split())
    assert "HDF5 file, or" not in result.err


def test_a_video_that_is_not_in_the_file_is_refused(mesm, trained: Trained, tmp_path: Path) -> None:
    np.save(tmp_path / "kitchen.npy", stored(trained))
    result = mesm("predict", trained.best, "--video", "kitchn", QUERY, "--features", tmp_path / "kitchen.npy")
    assert result.code == 2
    assert "has the video 'kitchen', not 'kitchn'. Did you mean 'kitchen'?" in " ".join(result.err.split())


def test_train_and_eval_need_one_file_of_many_videos(mesm, trained: Trained, tmp_path: Path) -> None:
    npy, film = trained.root / "npy" / "test-000.npy", tmp_path / "film.mp4"
    film.write_bytes(b"\0\0\0\x18ftypmp42")
    runs = ["--runs-dir", tmp_path / "runs"]
    for words in (["eval", trained.best], train_words(trained, *runs)):
        words = [word for word in words if word not in ("--features", trained.paths.features[0])]
        array, video = mesm(*words, "--features", npy), mesm(*words, "--features", film)
        assert (array.code, video.code) == (2, 2)
        assert "mesm prepare npy2hdf5" in " ".join(array.err.split())
        assert "features of one video" in " ".join(array.err.split())
        assert "is a video, not features" in " ".join(video.err.split())


def test_inference_settings_can_be_changed(mesm, trained: Trained, tmp_path: Path) -> None:
    words = ["predict", trained.best, "--video", "test-000", QUERY, "--json"]
    few = tmp_path / "few.toml"
    few.write_text("[dataset]\nmax_frames = 9\n[data]\nkeep_as = 'float32'\n")
    assert len(answer_to(mesm(*words, "--set", "dataset.max_frames=7"))["saliency"]) == 7
    assert len(answer_to(mesm(*words, "--config", few))["saliency"]) == 9
    assert len(answer_to(mesm(*words, "--config", few, "--set", "dataset.max_frames=8"))["saliency"]) == 8
    assert len(answer_to(mesm(*words, "--config", trained.run / "config.json"))["saliency"]) > 9
    assert mesm("eval", trained.best, "--config", few, "--set", "eval.batch_size=2").code == 0
    retriever = MomentRetriever.load(trained.best, config_file=few, overrides=["eval.batch_size=2"], device="cpu")
    assert (retriever.config.dataset.max_frames, retriever.config.eval.batch_size) == (9, 2)
    assert len(retriever.locate(stored(trained), [QUERY], duration=60.0)[0].saliency) == 9


def test_settings_of_training_cannot_be_changed(mesm, trained: Trained, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed.toml"
    fixed.write_text("[dataset]\nmax_frames = 9\nclip_len = 3\n[model]\nheads = 4\n")
    for command in (["predict", trained.best, "--video", "test-000", QUERY], ["eval", trained.best]):
        for more, names in (
            (["--set", "model.heads=4"], ["model.heads"]),
            (["--set", "train.lr=1", "--set", "dataset.clip_len=1"], ["train.lr", "dataset.clip_len"]),
            (["--config", fixed], ["dataset.clip_len", "model.heads"]),
            (["--set", "eval.max_tme=3"], ["Did you mean 'eval.max_time'"]),
        ):
            result = mesm(*command, *more)
            assert result.code == 2
            assert all(name in result.err for name in names), result.err
            assert "max_frames," not in result.err.split("settings are fixed")[0]
    with pytest.raises(ConfigError, match=r"model\.heads"):
        MomentRetriever.load(trained.best, overrides=["model.heads=4"])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([{"qid": 7}, {"qid": 8}, {"qid": 7}], "lines 1 and 3 have the same qid, 7"),
        ([{"qid": "a"}, {"qid": "a"}], "lines 1 and 2 have the same qid, 'a'"),
        ([{"qid": 2}, {}], "lines 1 and 2 have the same qid, 2"),
        ([{"qid": [1]}], "the qid is [1]; it must be an integer or a string"),
        ([{"qid": True}], "the qid is True; it must be"),
    ],
)
def test_repeated_and_invalid_ids_are_refused(
    mesm, trained: Trained, tmp_path: Path, monkeypatch, lines, expected
) -> None:
    content = "".join(json.dumps({"query": QUERY, "vid": "test-000"} | line) + "\n" for line in lines)
    (tmp_path / "q.jsonl").write_text(content)
    words = ["predict", trained.best, "--queries"]
    for more in (["--output", tmp_path / "out.jsonl"], ["--output", "-"], []):
        result = mesm(*words, tmp_path / "q.jsonl", *more)
        assert result.code == 2
        assert expected in " ".join(result.err.split())
        assert result.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    piped = mesm(*words, "-", "--output", "-")
    assert piped.code == 2
    assert "standard input" in piped.err
    assert expected in " ".join(piped.err.split())


def test_missing_ids_are_replaced_by_line_numbers(mesm, trained: Trained, tmp_path: Path) -> None:
    lines = [{"qid": None}, {"qid": "1"}, {}]
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps({"query": QUERY, "vid": "test-000"} | line) + "\n" for line in lines)
    )
    done = mesm("predict", trained.best, "--queries", tmp_path / "q.jsonl", "--output", "-")
    assert [json.loads(line)["qid"] for line in done.out.splitlines()] == [1, "1", 3]


def test_a_long_video_gives_one_warning(mesm, trained: Trained) -> None:
    words = ["predict", trained.best, "--video", "test-000", "--duration", "3600", "--set", "dataset.max_frames=9"]
    words += ["--window", "off"]
    asked = mesm(*words, QUERY, "The man cuts.", "--json")
    assert asked.code == 0
    assert asked.err.count("each stands for 400.0 seconds") == 1
    assert all("400.0 seconds" in answer["warnings"][0] for answer in json.loads(asked.out))


def test_repeated_warnings_are_counted(mesm, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("".join(f"xyzzy{number}\n" for number in range(30)))
    done = mesm("predict", trained.best, "--video", "test-000", "--queries", tmp_path / "q.txt", "--output", "-")
    assert done.err.count("knows no word") == 20
    assert "10 more warnings of this kind" in done.err


def test_timelines_fit_the_screen(monkeypatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(render, "_out", Console(file=out, width=80, force_terminal=True, no_color=True))
    monkeypatch.setattr(render, "_err", Console(file=err, width=80, force_terminal=True, no_color=True))
    draw = {"duration": 7200.0, "saliency": np.linspace(0, 1, 9)}
    render.timeline([Moment(0.0, 3600.0, 0.5), Moment(3599.0, 7200.0, 0.25)], seen=7200.0, **draw)
    drawn = Text.from_ansi(out.getvalue()).plain.splitlines()
    assert [len(line) for line in drawn] == [79] * 4
    assert len({line.index("█") for line in drawn[:1]} | {line.index("0:00") for line in drawn[3:]}) == 1
    monkeypatch.setattr(render, "_live", 1)
    render.timeline([Moment(0.0, 3600.0, 0.5)], seen=3600.0, **draw)
    assert len(Text.from_ansi(out.getvalue()).plain.splitlines()) == 4  # lines beside a live bar go through the bar's
    lines = Text.from_ansi(err.getvalue()).plain.splitlines()
    assert len(lines[1].rstrip()) == 33 + 23  # half of the curve: half was seen


def test_answers_are_piped_while_stderr_is_a_terminal(mesm, trained: Trained, monkeypatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(render, "_err", Console(stderr=False, file=screen, width=80, force_terminal=True))
    done = mesm("predict", trained.best, "--video", "test-000", QUERY, "kettle", "--output", "-")
    assert done.code == 0
    assert [json.loads(line)["query"] for line in done.out.splitlines()] == [QUERY, "kettle"]
    assert "pred_relevant_windows" not in screen.getvalue()
