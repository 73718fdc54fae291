from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from mesm_core.checkpoint import load_checkpoint, save_checkpoint
from mesm_core.errors import CheckpointError, FeatureError, MesmError, OutputError, TextError
from mesm_core.files import replacing, write_atomically
from mesm_core.inference.answers import VideoQueries
from mesm_core.inference.asking import Reply, load_file_retriever
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.inference.questions import Question
from mesm_core.inference.scoring import load_for_scoring, score_checkpoint
from mesm_core.training.directory import prepare_directory
from mesm_core.training.events import EpochDone, Finished
from mesm_core.training.run import Run
from tests.conftest import Evil, Trained, invent, small_config

CPU = torch.device("cpu")


def events(run: Run) -> list[object]:
    return list(run.train())


def test_a_run_leaves_its_record(trained: Trained) -> None:
    run = trained.run
    names = {path.name.split(".0.")[0] if "tfevents" in path.name else path.name for path in run.iterdir()}
    assert {"best.pt", "last.pt", "config.json", "metrics.jsonl", "predictions"} <= names
    assert list(run.glob("events.out.tfevents.*"))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[0]["losses"]["loss_span"] > 0
    assert records[0]["select"]["splits"] == ["val"]
    assert set(records[0]["eval"]["val"]) >= {"MR-full-R1@0.5", "MR-full-mIoU", "MR-full-mAP", "MR-superlong-mAP"}
    config = json.loads((run / "config.json").read_text())
    assert config == load_checkpoint(trained.best).config
    predictions = [json.loads(line) for line in (run / "predictions" / "val.jsonl").read_text().splitlines()]
    assert set(predictions[0]) == {"qid", "query", "vid", "pred_relevant_windows", "pred_saliency_scores"}


def test_resuming_ends_where_an_uninterrupted_run_ends(trained: Trained, tmp_path: Path) -> None:
    events(Run.open(small_config("train.epochs=1"), trained.paths, tmp_path, device=CPU))
    half = load_checkpoint(tmp_path / "last.pt")
    events(Run.open(small_config("train.epochs=2"), trained.paths, tmp_path, device=CPU, resume=True))
    whole, resumed = load_checkpoint(trained.run / "last.pt"), load_checkpoint(tmp_path / "last.pt")
    assert half.epoch == 1
    assert resumed.epoch == 2
    for name, value in whole.model.items():
        assert torch.equal(value, resumed.model[name]), name
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_a_record_without_its_checkpoint_is_dropped_on_resume(trained: Trained, tmp_path: Path) -> None:
    config = small_config("train.epochs=1")
    events(Run.open(config, trained.paths, tmp_path, device=CPU))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2}\n{"epo')
    events(Run.open(config, trained.paths, tmp_path, device=CPU, resume=True))
    assert [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1]


def test_early_stopping(trained: Trained, tmp_path: Path) -> None:
    config = small_config("train.epochs=9", "train.patience=0", "train.lr=1e-9", "train.eval_untrained=true")
    done = events(Run.open(config, trained.paths, tmp_path, device=CPU))
    epochs = [event.record["epoch"] for event in done if isinstance(event, EpochDone)]
    assert epochs[0] == 0
    assert len(epochs) < 10
    assert isinstance(done[-1], Finished)
    assert done[-1].stopped_early


def test_evaluation_every_n_epochs(trained: Trained, tmp_path: Path) -> None:
    config = small_config("train.epochs=3", "train.eval_every=2", "train.select_on=paper")
    done = [e for e in events(Run.open(config, trained.paths, tmp_path, device=CPU)) if isinstance(e, EpochDone)]
    assert ["eval" in event.record for event in done] == [False, True, True]
    assert list(done[1].record["eval"]) == ["test"]


def test_predictions_do_not_depend_on_the_batch(trained: Trained) -> None:
    def windows(batch_size: int) -> list[torch.Tensor]:
        job = load_for_scoring(trained.best, split="test", overrides=[f"eval.batch_size={batch_size}"])
        model = job.retriever.model
        plan = job.dataset.eval_plan(batch_size=batch_size)
        if batch_size == 2:
            plan = plan[::-1]
        order = [index for batch in plan for group in batch for index in group]
        with torch.inference_mode():
            spans = torch.cat([model(batch.inputs).spans[-1] for batch in job.dataset.batches(plan)])
        return [spans[order.index(index)] for index in range(len(order))]

    one, two, all_ = windows(1), windows(2), windows(99)
    for a, b, c in zip(one, two, all_, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
        assert torch.allclose(a, c, atol=1e-5)


def test_scores_do_not_depend_on_the_batch(trained: Trained) -> None:
    briefs = [
        score_checkpoint(load_for_scoring(trained.best, split="test", overrides=[f"eval.batch_size={n}"])).brief
        for n in (1, 2, 50)
    ]
    assert briefs[0] == briefs[1] == briefs[2]


def ask(checkpoint: Path, queries: list[str], *, duration: float | None = None, **how: Any) -> list[Reply]:
    questions = [Question(number, "test-000", query, duration) for number, query in enumerate(queries)]
    return list(load_file_retriever(checkpoint, device="cpu").answer(questions, **how))


def test_locate(trained: Trained) -> None:
    replies = ask(trained.best, ["The man cuts a pan.", "kettle"])
    answers, duration = [reply.answer for reply in replies], replies[0].duration
    assert [answer.query for answer in answers] == ["The man cuts a pan.", "kettle"]
    for answer in answers:
        assert len(answer.moments) == 4
        assert all(0 <= moment.start <= moment.end <= duration for moment in answer.moments)
        scores = [moment.score for moment in answer.moments]
        assert scores == sorted(scores, reverse=True)
        assert len(answer.saliency) == min(round(duration / 2), 40)
    apart = ask(trained.best, ["The man cuts a pan.", "kettle"], independent=True)
    for one, other in zip(apart, answers, strict=True):
        assert [m.start for m in one.answer.moments] == pytest.approx([m.start for m in other.moments], abs=2e-4)


def test_the_readmes_lines_of_python(trained: Trained) -> None:
    from mesm_core import MomentRetriever as FrontDoor

    retriever = FrontDoor.load(str(trained.best), device="cpu")
    frames = np.load(trained.root / "npy" / "test-000.npy")
    (answer,) = retriever.locate(frames, ["She took out kiwi"], duration=176.0)
    usual = ask(trained.best, ["She took out kiwi"], duration=176.0, nms=0.7)[0].answer
    assert answer.moments == usual.moments
    assert np.array_equal(answer.saliency, usual.saliency)


def test_many_videos_from_many_threads(trained: Trained) -> None:
    retriever = MomentRetriever.load(trained.best, device="cpu")
    names = [f"{split}-{number:03}" for split in ("train", "test") for number in range(3)]
    asked = [VideoQueries(np.load(trained.root / "npy" / f"{name}.npy"), ["He cuts.", "bread"], 60.0) for name in names]
    together = retriever.locate_many(asked)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda a: retriever.locate(a.features, a.queries, duration=a.duration), asked * 3))
    for many, one in zip(together * 3, alone, strict=True):
        for a, b in zip(many, one, strict=True):
            assert [m.start for m in a.moments] == pytest.approx([m.start for m in b.moments], abs=2e-3)
    assert retriever.locate_many([]) == []


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (np.ones((5, 7)), "are 7 wide, but model.video_dim is 12"),
        (np.ones(12), "features are \\(frames, dim\\)"),
        (np.full((5, 12), np.nan), "NaN or infinity"),
    ],
)
def test_features_that_do_not_fit_the_model(trained: Trained, frames: np.ndarray, expected: str) -> None:
    with pytest.raises(FeatureError, match=expected):
        MomentRetriever.load(trained.best, device="cpu").locate(frames, ["a"], duration=9.0)


def test_duration_from_annotations_or_not_at_all(trained: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "bare.hdf5"
    shutil.copy(trained.paths.features[0], copy)
    with h5py.File(copy, "a") as file:
        for vid in file:
            file[vid].attrs.pop("duration", None)
        file["elsewhere"] = file["val-001"][()]
    retriever = load_file_retriever(trained.best, features=[copy], device="cpu")
    (known,) = retriever.answer([Question(1, "val-001", "He cuts.")])
    assert known.duration > 10
    with pytest.raises(MesmError, match="--duration"):
        list(retriever.answer([Question(1, "elsewhere", "He cuts.")]))
    with pytest.raises(MesmError, match="positive"):
        ask(trained.best, ["a"], duration=0)


def test_queries_that_are_none(trained: Trained) -> None:
    with pytest.raises(TextError, match="empty"):
        ask(trained.best, ["a", " "])
    with pytest.raises(TextError, match="10,000 words"):
        ask(trained.best, [" ".join(["cut"] * 10000)])
    assert ask(trained.best, []) == []
    with pytest.raises(TextError, match="No query"):
        MomentRetriever.load(trained.best, device="cpu").locate(np.ones((5, 12)), [], duration=9.0)
    assert len(ask(trained.best, ["Xyzzy"])) == 1


def overlaps(reply: Reply) -> list[float]:
    """Return the intersection over the hull of every pair of a reply's moments."""
    return [
        max(min(a.end, b.end) - max(a.start, b.start), 0) / (max(a.end, b.end) - min(a.start, b.start))
        for a, b in combinations(reply.answer.moments, 2)
    ]


def test_suppression_drops_overlapping_moments_and_keeps_the_best(trained: Trained) -> None:
    (whole,), (few,) = ask(trained.best, ["He cuts."]), ask(trained.best, ["He cuts."], nms=0.01)
    assert max(overlaps(whole)) > 0.01, "there is nothing to suppress"
    assert max(overlaps(few), default=0) <= 0.01
    assert few.answer.moments[0] == whole.answer.moments[0]
    dropped = [moment for moment in whole.answer.moments if moment not in few.answer.moments]
    assert dropped
    assert set(few.answer.moments) < set(whole.answer.moments)


def test_skipping_videos_without_features(tmp_path: Path, trained: Trained) -> None:
    paths = invent(tmp_path / "more", train=9, val=4, test=3)
    mixed = type(paths)(paths.annotations, trained.paths.features, paths.text)
    config = small_config("train.epochs=1")
    with pytest.raises(FeatureError, match="1 of 9 videos have no features"):
        Run.open(config, mixed, tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()
    run = Run.open(config, mixed, tmp_path / "run", device=CPU, skip_missing=True)
    assert run.parts.skipped == ["train-008", "val-003"]


def test_nan_loss_names_the_videos(trained: Trained, tmp_path: Path) -> None:
    run = Run.open(small_config(), trained.paths, tmp_path, device=CPU)
    with torch.no_grad():
        run.model.class_head.weight.fill_(float("nan"))
    with pytest.raises(MesmError, match=r"loss is nan in epoch 1, step 1 \(videos .*train-"):
        events(run)


def test_a_directory_with_a_run_is_kept(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--resume"):
        prepare_directory(trained.run, overwrite=False)
    (tmp_path / "best.pt").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    prepare_directory(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_checkpoints_that_are_not_ours(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "mesm-checkpoint", "evil": Evil()}, "evil.pt")
    torch.save({"model": {}}, "other.pt")
    torch.save({"format": "mesm-checkpoint", "version": 1}, "hollow.pt")
    torch.save({"format": "mesm-checkpoint", "version": 99, "mesm": "9.0"}, "newer.pt")
    Path("text.pt").write_text("hello")
    Path("cut.pt").write_bytes(trained.best.read_bytes()[:5000])
    Path("empty.pt").touch()
    expected = {
        "evil": "which no checkpoint needs",
        "other": "not a mesm checkpoint",
        "hollow": "without config",
        "newer": "newer mesm",
        "text": "not a checkpoint",
        "cut": "not a checkpoint",
        "empty": "not a checkpoint",
        "absent": "No checkpoint",
    }
    for name, message in expected.items():
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(Path(f"{name}.pt"))
    assert not Path("evil-was-here").exists()
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(trained.run)


def test_weights_that_do_not_fit_their_config(trained: Trained, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained.best)
    checkpoint.config["model"]["hidden_dim"] = 32
    save_checkpoint(tmp_path / "odd.pt", checkpoint)
    with pytest.raises(CheckpointError, match="do not fit"):
        MomentRetriever.load(tmp_path / "odd.pt", device="cpu")


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_bytes(b"ne")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(OutputError, match="already exists"):
        write_atomically(target, b"new", overwrite=False)
    with pytest.raises(OutputError, match="is a folder"):
        write_atomically(tmp_path, b"new")
    with pytest.raises(OutputError, match="could not be written"):
        write_atomically(target / "below", b"new")
