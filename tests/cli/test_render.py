"""Printed output: tables in a narrow terminal and in a pipe, progress without a terminal."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from mesm_cli import render
from mesm_cli.commands.own_videos import ask_backbones
from mesm_core.losses.table import LOSSES
from mesm_core.metrics.report import moment_tables

NAMES = [f"a-long-name-of-a-submission-{number}.jsonl" for number in range(6)]
SCORES = [["MR-full-R1@0.5", *(f"{number}.25" for number in range(6))], ["MR-full-mIoU", *["9.00"] * 6]]
RUNS = (
    ["run", "epochs", "mIoU", "R1@0.5", "started (UTC)", "took", "status"],
    [["charades-slowfast-and-clip-bf16-seed-3", "200/200", "51.20", "60.00", "2001-02-03 04:05", "12 h 34 min",
      "interrupted by a full disk"]],
)  # fmt: skip


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Stdout as a terminal of 80 columns."""
    out = io.StringIO()
    monkeypatch.setattr(render, "_out", Console(file=out, force_terminal=True, width=80, color_system=None))
    yield out


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Stdout and stderr as pipes."""
    out = io.StringIO()
    monkeypatch.setattr(render, "_out", Console(file=out, width=80))
    monkeypatch.setattr(render, "_err", Console(file=out, width=80))
    yield out


def letters(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(("columns", "rows"), [(["metric", *NAMES], SCORES), RUNS])
def test_all_columns_are_shown_in_a_narrow_terminal(terminal: io.StringIO, columns, rows) -> None:
    render.table(columns, rows)
    shown = terminal.getvalue()
    assert all(len(line) <= 80 for line in shown.splitlines())
    wanted = Counter("".join([*columns, *(cell for row in rows for cell in row)]))
    missing = wanted - Counter(shown)
    assert set(missing) <= {" "}


def test_six_files_are_shown_side_by_side(terminal: io.StringIO) -> None:
    render.table(["metric", *NAMES], SCORES)
    assert terminal.getvalue().splitlines()[-1].split() == SCORES[1]


def test_long_values_are_wrapped_completely(terminal: io.StringIO) -> None:
    path = f"/data/of/the/group/charades/features/{'x' * 60}/slowfast.hdf5"
    render.table(["", "charades-a"], [["dataset.features", path], ["train.lr", "1"]])
    _, *lines, last = terminal.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "".join(line[len("dataset.features") :].strip() for line in lines) == path
    assert last.split() == ["train.lr", "1"]


def test_columns_that_do_not_fit_are_printed_below(terminal: io.StringIO) -> None:
    render.table(["metric", *map(str, range(30))], [["mIoU", *(f"{number}.25" for number in range(30))]])
    shown = terminal.getvalue()
    assert all(f"{number}.25" in shown.split() for number in range(30))
    assert sum(line.startswith("mIoU") for line in shown.splitlines()) > 1


@pytest.mark.parametrize(("columns", "rows"), [(["metric", *NAMES], SCORES), RUNS])
def test_a_piped_table_has_one_line_per_row(pipe: io.StringIO, columns, rows) -> None:
    render.table(columns, rows)
    lines = pipe.getvalue().splitlines()
    assert len(lines) == 1 + len(rows)
    for line, cells in zip(lines, [columns, *rows], strict=True):
        assert line == line.rstrip()
        assert [cell.strip() for cell in line.split("  ") if cell.strip()] == cells
    render.table(["a", "b"], [["1", "2"]])
    assert pipe.getvalue().endswith("a  b\n1  2\n")


def test_piped_findings_have_one_line_each(pipe: io.StringIO) -> None:
    long = "videos are missing: " + ", ".join(f"video-{number}" for number in range(30))
    render.findings([("ok", "annotations", "fine"), ("warning", "features", long)])
    assert pipe.getvalue().splitlines() == ["ok       annotations  fine", f"warning  features     {long}"]


def test_findings_are_wrapped_in_a_terminal(terminal: io.StringIO) -> None:
    long = "videos are missing: " + ", ".join(f"video-{number}" for number in range(30))
    render.findings([("error", "features", long)])
    lines = terminal.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert letters("".join(lines)) == "errorfeatures" + letters(long)


def test_a_piped_training_prints_a_line_every_half_minute(pipe: io.StringIO) -> None:
    seconds = count(0, 10)
    losses = dict.fromkeys([*LOSSES, *(f"{name}_0" for name in LOSSES), "loss"], 1.5)
    with render.training_progress(clock=lambda: float(next(seconds))) as progress:
        for index in range(9):
            step = SimpleNamespace(epoch=2, index=index, steps=40, queries=5, losses=losses, checked=losses)
            progress.step(step, epochs=7, processes=1)
        progress.busy("Evaluating", 8, 90)
        progress.busy("Evaluating", 9, 90)
        progress.busy("Evaluating", 10, 90)
    lines = pipe.getvalue().splitlines()
    assert lines[0] == "Epoch 3/7  step 3/40  loss 1.5 span 1.5 giou 1.5 label 1.5 saliency 1.5 0 q/s"
    assert [line.split("  ")[1] for line in lines] == ["step 3/40", "step 6/40", "step 9/40", "10/90"]


def test_a_quiet_training_prints_nothing(pipe: io.StringIO) -> None:
    seconds = count(0, 100)
    with render.training_progress(quiet=True, clock=lambda: float(next(seconds))) as progress:
        progress.busy("Evaluating", 8, 90)
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(("stdin", "stderr"), [(True, True), (True, False), (False, True)])
def test_a_question_needs_a_terminal_to_read_from_and_to_write_to(
    monkeypatch: pytest.MonkeyPatch, stdin: bool, stderr: bool
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: stdin))
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: stderr))
    asked: list[str] = []
    monkeypatch.setattr(render, "note", lambda _: None)
    monkeypatch.setattr(render, "ask_text", lambda question, default: asked.append(question) or f"{default}, pixels")
    assert render.can_ask() == (stdin and stderr)
    assert ask_backbones() == (["clip-b32", "pixels"] if stdin and stderr else [])
    assert len(asked) == (stdin and stderr)


def test_the_table_by_length_shows_ranges_without_queries(pipe: io.StringIO) -> None:
    tables = moment_tables([np.array([[0.0, 4.0, 0.9]])], [np.array([[0.0, 5.0]])])
    render.length_table(tables)
    head, full, short, middle, long = (line.split() for line in pipe.getvalue().splitlines())
    assert head == ["moments", "queries", "R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "mAP"]
    assert full == ["full", "1", "100.00", "100.00", "100.00", "80.00", "70.00"]
    assert short == ["short", *full[1:]]
    assert [middle, long] == [[name, "0", *"–––––"] for name in ("middle", "long")]


def test_json_has_null_for_numbers_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    render.data({"a": [float("nan"), 1.5], "b": (float("inf"), "NaN")})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"a": [None, 1.5], "b": [None, "NaN"]}


def test_names_are_not_read_as_markup_or_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[/] [bold]:smile:.hdf5"
    render.say(f"{name}: 3 videos", title=name)
    render.note(f"Page: {name}")
    render.note(render.styled((name, "bold")))
    render.warn(name)
    render.error(name, hint=name)
    render.findings([("error", name, name)])
    render.table([name, name], [[name, name]], title=name)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count(name) == 14
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in printed.out + printed.err


def test_control_characters_of_names_are_shown_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\x9b.mp4"
    render.error(f"{name} is empty.", f"Copy {name}.")
    render.warn(name)
    render.note(name)
    render.say(name, title=name)
    render.table(["video"], [[name]])
    printed = "".join(capsys.readouterr())
    assert printed.count(r"a\x1b[31m\x9b.mp4") == 7
    assert not {"\x1b", "\x9b"} & set(printed)


def test_a_progress_bar_does_not_read_names_as_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(render, "_err", Console(file=out, force_terminal=True, width=80, color_system=None))
    with render.progress("Reading [/]", 2, unit="files") as advance:
        advance(1, "a[/].mp4")
    assert "Reading [/]" in out.getvalue()
    assert "a[/].mp4" in out.getvalue()
