"""Exports, training from a checkpoint, queries from files and pipes, plots and reports."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mesm_core.checkpoint import load_checkpoint
from mesm_core.official.checkpoint import load_any_checkpoint
from tests.cli.commands.pages import read_page
from tests.cli.small_run import train_words
from tests.conftest import Trained


def test_an_exported_checkpoint_gives_the_same_answers(mesm, trained: Trained, tmp_path: Path) -> None:
    assert mesm("export", trained.best, tmp_path / "out").code == 0
    assert "--overwrite" in mesm("export", trained.best, tmp_path / "out").err
    ours, again = load_checkpoint(trained.best), load_any_checkpoint(tmp_path / "out")
    assert again.model.keys() == ours.model.keys()
    assert all(torch.equal(again.model[name], ours.model[name]) for name in ours.model)
    assert again.config == ours.config
    assert again.data_statistics == ours.data_statistics
    words = ["--split", "test", "--json"]
    figures = [json.loads(mesm("eval", path, *words).out)["full"] for path in (trained.best, tmp_path / "out")]
    assert figures[0] == figures[1]
    (tmp_path / "out" / "config.json").write_text("{")
    broken = mesm("eval", tmp_path / "out")
    assert broken.code == 2
    assert "not an exported checkpoint" in broken.err


def test_an_official_export_is_read_back(mesm, trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "model_best.ckpt"
    assert mesm("export", trained.best, out, "--official").code == 0
    assert json.loads((tmp_path / "opt.json").read_text())["dataset_name"] == "tacos"
    ours, again = load_checkpoint(trained.best), load_any_checkpoint(out)
    assert all(torch.equal(again.model[name], ours.model[name]) for name in ours.model)
    assert {key: again.config[key] for key in ("model", "loss", "train", "eval")} == {
        key: ours.config[key] for key in ("model", "loss", "train", "eval")
    }
    data = ["--data-dir", trained.root, "--glove", trained.paths.text, "--split", "test", "--json"]
    figures = [json.loads(mesm("eval", path, *data).out)["full"] for path in (trained.best, out)]
    assert figures[0] == figures[1]  # the word vector of <UNK>, too, is had back from the seed


def test_an_official_checkpoint_survives_a_round_trip(mesm, shared: Path, tmp_path: Path) -> None:
    official = shared / "golden" / "official_charades" / "model_test_best.ckpt"
    assert mesm("export", official, tmp_path / "again.ckpt", "--official").code == 0
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        theirs, ours = (torch.load(path, weights_only=True) for path in (official, tmp_path / "again.ckpt"))
    assert theirs["model"].keys() == ours["model"].keys()
    used = [name for name in theirs["model"] if not name.startswith("txt_position_embed")]
    assert all(torch.equal(theirs["model"][name], ours["model"][name]) for name in used)
    assert all(theirs["model"][name].shape == ours["model"][name].shape for name in theirs["model"])
    settings = {k: v for k, v in vars(ours["opt"]).items() if k not in {"exp_id", "text_model_path"}}
    assert settings == {k: vars(theirs["opt"])[k] for k in settings}


def test_training_starts_from_a_checkpoint(mesm, trained: Trained, shared: Path, tmp_path: Path) -> None:
    words = ["--runs-dir", tmp_path, "--set", "train.epochs=1", "--set", "train.lr=1e-30"]
    assert mesm("train", "--init", trained.best, "--name", "same", *words).code == 0
    before, after = load_checkpoint(trained.best), load_checkpoint(tmp_path / "tacos-same" / "best.pt")
    assert all(torch.allclose(after.model[name], before.model[name], atol=1e-6) for name in before.model)
    other = mesm(*train_words(trained, "--init", trained.best, *words, "--set", "text.vocab_size=12"))
    assert other.code == 0, other.err
    assert "not in the checkpoint and start untrained: frame_word.head.output" in " ".join(other.err.split())
    unlike = mesm(*train_words(trained, "--init", trained.best, "--name", "x", *words, "--set", "model.hidden_dim=32"))
    assert unlike.code == 2
    assert "weights fit" in unlike.err
    official = shared / "golden" / "official_charades"
    vocabulary = shared / "data" / "charades" / "annotations" / "glove.pkl"
    data = ["--annotations", official / "annotations", "--features", official / "features.hdf5", "--glove", vocabulary]
    refused = mesm("train", "--init", official / "model_test_best.ckpt", *data, *words)
    assert refused.code == 2
    assert "charades_sta_train.txt" in refused.err  # it got as far as the annotations, of which the test split is there


def test_questions_from_files_and_pipes(mesm, trained: Trained, tmp_path: Path, monkeypatch) -> None:
    best = trained.best
    (tmp_path / "q.txt").write_text("The man cuts a pan.\n\nkettle\n")
    lines = [{"query": "He cuts.", "vid": f"test-00{n % 3}", "qid": f"q{n}"} for n in range(150)]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "q.jsonl").write_text(content)
    with gzip.open(tmp_path / "q.jsonl.gz", "wt") as file:
        file.write(content)
    text = mesm("predict", best, "--queries", tmp_path / "q.txt", "--video", "test-000", "--json")
    assert [answer["query"] for answer in json.loads(text.out)] == ["The man cuts a pan.", "kettle"]
    out = tmp_path / "answers.jsonl"
    for name in ("q.jsonl", "q.jsonl.gz"):
        done = mesm("predict", best, "--queries", tmp_path / name, "--output", out, "--overwrite", "--nms", "0.5")
        assert done.code == 0, done.err
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        assert [answer["qid"] for answer in answers] == [line["qid"] for line in lines]
        assert {answer["vid"] for answer in answers} == {"test-000", "test-001", "test-002"}
        assert answers[0].keys() == {"qid", "query", "vid", "pred_relevant_windows", "pred_saliency_scores"}
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    piped = mesm("predict", best, "--queries", "-", "--output", "-", "--top", "1")
    assert [len(json.loads(line)["pred_relevant_windows"]) for line in piped.out.splitlines()] == [1] * 150
    assert "--overwrite" in mesm("predict", best, "--queries", tmp_path / "q.jsonl", "--output", out).err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "has no queries"),
        ("He cuts.\n", "line 1: the line has no 'vid'"),
        ('{"query": "He cuts.", "vid": "test-000"}\n{"query": "He', "line 2: Unterminated string"),
        ('{"vid": "test-000"}\n', "line 1: 'query' must be a sentence"),
        ('{"vid": "test-000", "query": "a"}\n{"vid": "test-000", "query": " "}\n', "line 2: the query is empty"),
        ('{"query": "He cuts.", "vid": "test-000", "duration": "long"}\n', "is not a number of seconds"),
        ('{"query": "He cuts.", "vid": "tst-000"}\n', "Did you mean 'test-000'?"),
        ('{"query": "' + "cut " * 10000 + '", "vid": "test-000"}\n', "has 10,000 words"),
    ],
)
def test_invalid_questions_leave_no_file(mesm, trained: Trained, tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "q.jsonl").write_text(content)
    result = mesm("predict", trained.best, "--queries", tmp_path / "q.jsonl", "--output", tmp_path / "out.jsonl")
    assert result.code == 2
    assert expected in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_plots_are_written(mesm, trained: Trained, tmp_path: Path) -> None:
    words = ["predict", trained.best, "--video", "test-000", "A <b>man</b> cuts.", "kettle", "--top", "3"]
    assert mesm(*words, "--plot", tmp_path / "p.html").code == 0
    page = read_page(tmp_path / "p.html")
    assert "A <b>man</b> cuts." in page.text
    assert (tmp_path / "p.html").read_text().count('class="track"') == 6
    for form, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        assert mesm(*words, "--plot", tmp_path / f"p{form}").code == 0
        assert (tmp_path / f"p{form}").read_bytes().startswith(magic)
    assert "ends in .html" in mesm(*words, "--plot", tmp_path / "p.pdf").err


def test_plot_without_matplotlib(mesm, trained: Trained, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = mesm("predict", trained.best, "--video", "test-000", "a", "--plot", tmp_path / "p.png")
    assert result.code == 2
    assert "mesm[plot]" in result.err


def test_report_is_written(mesm, trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = mesm("eval", trained.best, "--split", "test", "--report", path, "--json")
    assert result.code == 0, result.err
    page, tables = read_page(path), json.loads(result.out)
    assert f"{tables['brief']['MR-full-mIoU']:.2f}" in page.text
    counts = [int(n) for n in re.findall(r"<b>(\d+)</b>", path.read_text())[:10]]
    assert sum(counts) == tables["queries"]
    for heading in ("By length of the moment", "IoU of the first answer", "R1@0.5 by position", "Worst", "Best"):
        assert heading in page.text
    assert "--overwrite" in mesm("eval", trained.best, "--report", path).err


def test_eval_warns_of_other_data_than_at_training(mesm, trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "other.hdf5"
    with h5py.File(trained.paths.features[0]) as source, h5py.File(other, "w") as target:
        for vid in source:
            target[vid] = 3 * np.repeat(source[vid][()], 2, axis=0)
    result = mesm("eval", trained.best, "--split", "test", "--features", other)
    assert result.code == 0
    shown = " ".join(result.err.split())
    assert "The feature files are other.hdf5, c3d.hdf5 at training" in shown
    assert "frames have norms of" in shown
    assert "frames a second" in shown
    assert "Warning" not in mesm("eval", trained.best, "--split", "test").err
