"""Texts, JSON, TOML and settings that are odd, damaged or enormous: read, or refused with one message."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesm_core import inputs
from mesm_core.config.load import file_layer, known_keys, load_config
from mesm_core.data.count_files import read_clip_counts, read_glove_counts
from mesm_core.data.readers import read_split
from mesm_core.data.readers.json_lines import read_lines
from mesm_core.errors import ConfigError, DataError, MesmError, TextError
from mesm_core.inference.questions import read_questions
from mesm_core.inference.submissions import read_submission
from mesm_core.inputs import text_lines
from mesm_core.text.glove import find_glove, glove_vectors
from tests.conftest import Trained

LINE = {"vid": "v1", "duration": 10.0, "query": "He cuts.", "qid": 7, "relevant_windows": [[1, 4]]}
ANSWER = {"qid": 7, "pred_relevant_windows": [[1, 4, 0.5]]}
HUGE = "1" + "0" * 400
VALUES = ["null", "[]", "{}", "true", "1.5", '"\\ud800"', HUGE, "1" * 5000, "NaN", "-Infinity", "[" * 10**5]
DEEP = "[" * 100_000 + "]" * 100_000


def changed(record: dict[str, object], key: str, value: str) -> str:
    return json.dumps(record | {key: "HERE"}).replace('"HERE"', value) + "\n"


@pytest.mark.parametrize("key", ["qid", "vid", "duration", "query", "relevant_windows"])
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_odd_values_in_annotations(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "a.jsonl").write_text(changed(LINE, key, value))
    if key == "relevant_windows" and value in ("null", "[]", "{}"):
        assert read_lines(tmp_path / "a.jsonl").queries[0].windows == ()
        return
    if key == "duration" and value == "1.5":
        return
    with pytest.raises(DataError, match=r"a\.jsonl, line 1"):
        read_lines(tmp_path / "a.jsonl")


@pytest.mark.parametrize("key", ["qid", "pred_relevant_windows", "pred_saliency_scores"])
@pytest.mark.parametrize("value", [*VALUES[3:], f"[[{HUGE}, {HUGE}, 1]]"], ids=range(len(VALUES) - 2))
def test_odd_values_in_submissions(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "a.jsonl").write_text(changed(ANSWER, key, value))
    with pytest.raises(DataError, match=r"a\.jsonl, line 1"):
        read_submission(tmp_path / "a.jsonl")


@pytest.mark.parametrize("value", [*VALUES[1:5], *VALUES[5:]], ids=range(len(VALUES) - 1))
def test_odd_values_in_questions(value: str) -> None:
    for key in ("qid", "vid", "query", "duration"):
        if (key, value) == ("duration", "1.5"):
            continue
        with pytest.raises(DataError, match="stdin, line 1"):
            list(read_questions([changed(LINE, key, value)], source="stdin", video=None, duration=None))


@pytest.mark.parametrize("value", [DEEP, HUGE, "[]", '"\\ud800"', "1" * 5000, "", "\0", "{"], ids=range(8))
@pytest.mark.parametrize("name", ["tacos", "charades-cd", "charades-cg"])
def test_odd_annotation_objects(tmp_path: Path, name: str, value: str) -> None:
    video = {"timestamps": [[1, 4]], "sentences": ["He cuts."], "fps": 25, "num_frames": 100, "duration": 9}
    path = tmp_path / {"tacos": "train.json", "charades-cd": "charades_train.json"}.get(name, "train.json")
    videos = [value, *(changed(video | {"video_duration": 9}, key, value) for key in ("timestamps", "sentences"))]
    texts = [value, *(f'{{"v": {text}}}' for text in videos)]
    for text in texts:
        path.write_text(text)
        with pytest.raises(DataError, match=path.name):
            read_split(name, tmp_path, "train")


def test_qids_that_pandas_wrote_are_integers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ANSWER | {"qid": 7.0}))
    assert list(read_submission(tmp_path / "a.jsonl").windows) == [7]


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    def marked(name: str, text: str) -> Path:
        (tmp_path / name).write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8")
        return tmp_path / name

    line = json.dumps(LINE) + "\n"
    assert read_lines(marked("a.jsonl", line)).queries[0].qid == 7
    assert list(read_submission(marked("s.jsonl", json.dumps(ANSWER) + "\n")).windows) == [7]
    marked("charades_sta_test.txt", "v1 1 2##He cuts.\n")
    marked("Charades_v1_test.csv", "id,length\nv1,10\n")
    assert read_split("charades", tmp_path, "test").queries[0].sentence == "He cuts."
    assert read_glove_counts(marked("c.txt", "he 2 1\n")) == ["he"]
    assert glove_vectors(marked("g.txt", "he 1 2\n"), ["he"], dim=2)["he"].tolist() == [1, 2]
    assert file_layer(marked("a.toml", "[train]\nepochs = 3\n")).values == {"train": {"epochs": 3}}
    assert file_layer(marked("a.json", '{"train": {"epochs": 3}}\n')).values == {"train": {"epochs": 3}}
    asked = read_questions(["\ufeff" + line], source="x", video=None, duration=None)
    assert next(asked).query == "He cuts."


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    (tmp_path / "charades_sta_test.txt").write_text("v1 1 2##He\u2028cuts\x0c.\n", encoding="utf-8")
    (tmp_path / "Charades_v1_test.csv").write_text("id,length\nv1,10\n")
    assert read_split("charades", tmp_path, "test").queries[0].sentence == "He\u2028cuts\x0c."


@pytest.mark.parametrize("line", ["he ² 1", "he " + "1" * 5000 + " 1", "he 2", "he 2 -1"])
def test_odd_counts(tmp_path: Path, line: str) -> None:
    (tmp_path / "c.txt").write_text(line + "\n", encoding="utf-8")
    for read in (read_glove_counts, read_clip_counts):
        with pytest.raises(DataError, match="line 1"):
            read(tmp_path / "c.txt")


def test_a_table_with_an_endless_field(tmp_path: Path) -> None:
    (tmp_path / "charades_sta_test.txt").write_text("v1 1 2##He cuts.\n")
    (tmp_path / "Charades_v1_test.csv").write_text('id,length\n"' + "x" * 200_000)
    with pytest.raises(DataError, match=r"Charades_v1_test\.csv"):
        read_split("charades", tmp_path, "test")


def bomb(path: Path, byte: bytes) -> Path:
    with gzip.open(path, "wb") as file:
        for _ in range(40):
            file.write(byte * 2**20)
    return path


@pytest.mark.parametrize("byte", [b"\0", b"\n"], ids=["one line", "blank lines"])
def test_gzip_bombs_end_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte: bytes) -> None:
    monkeypatch.setattr(inputs, "ALWAYS_ALLOWED", 2 * 2**20)
    path = bomb(tmp_path / "a.gz", byte)
    for read in (read_lines, read_submission, read_glove_counts, lambda p: glove_vectors(p, ["he"], dim=2)):
        with pytest.raises(MesmError, match="grows more than 200 times"):
            read(path)


def test_limits_on_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "LONGEST_LINE", 2**20)
    monkeypatch.setattr(inputs, "LARGEST_TEXT", 2 * 2**20)
    (tmp_path / "a.txt").write_bytes(b"x" * (3 * 2**20))
    with pytest.raises(DataError, match="a line of more than 1 MiB"):
        read_submission(tmp_path / "a.txt")
    with pytest.raises(TextError, match="a line of more than 1 MiB"):
        glove_vectors(tmp_path / "a.txt", ["he"], dim=2)
    with pytest.raises(DataError, match="more than 2 MiB of text"):
        read_lines(tmp_path / "a.txt")


def test_lines_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BLOCK", 3)
    for name in ("a.txt", "a.txt.gz"):
        with (gzip.open if name.endswith("gz") else open)(tmp_path / name, "wb") as file:
            file.write("äb\r\n\ncde fgh\nlast".encode())
        assert list(inputs.text_lines(tmp_path / name, what="text")) == ["äb", "", "cde fgh", "last"]


def test_vectors_that_are_not_finite(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("she 1 2\nhe nan 2\n")
    with pytest.raises(TextError, match="line 2: the vector of 'he' holds NaN"):
        glove_vectors(tmp_path / "g.txt", ["he", "she"], dim=2)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model.encoder_layers=1000000", "less than or equal to 128"),
        ("model.hidden_dim=1000000000", "less than or equal to 65536"),
        ("model.hidden_dim=65536", "billion weights, at most 2 billion"),
        ("eval.thresholds=[]", "at least 1 item"),
        ("eval.thresholds=[nan]", "finite"),
        ("dataset.clip_len=1e-9", "at least 0.001"),
        ("train.seed=99999999999999999999", "less than"),
    ],
)
def test_absurd_settings(setting: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config("tacos", overrides=[setting])


def test_no_number_is_unbounded() -> None:
    config = load_config("tacos").model_dump()
    for key in known_keys():
        section, _, name = key.partition(".")
        if type(config[section][name]) in (int, float):
            for value in ("1" + "0" * 30, "9" * 400, "-1" + "0" * 30, "1e300", "nan", "inf"):
                with pytest.raises(ConfigError, match=key.split(".")[0]):
                    load_config("tacos", overrides=[f"{key}={value}"])


@pytest.mark.parametrize("text", ["a = " + "1" * 5000, "a = " + DEEP, "a = [", "\0", "a = '\ud800'"], ids=range(5))
def test_odd_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ConfigError, match=r"a\.toml"):
        file_layer(tmp_path / "a.toml")


def test_standard_input_that_is_not_utf_8(mesm, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("predict", trained.best, "--video", "test-000")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    result = mesm(*words)
    assert (result.code, "not UTF-8 text" in result.err) == (2, True)
    result = mesm(*words, "caf\udce9")
    assert (result.code, "not UTF-8 text" in result.err) == (2, True)


def test_bench_compares_with_its_own_output_only(mesm, tmp_path: Path) -> None:
    for text in ("[]", '{"training": {"queries_per_s": "x"}}', DEEP, "\0"):
        (tmp_path / "a.json").write_text(text)
        result = mesm("bench", "--compare", tmp_path / "a.json")
        assert (result.code, "a.json" in result.err) == (2, True)


def test_a_gzip_file_may_be_padded_with_zeros_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"one\n") + bytes(512) + gzip.compress(b"two\n") + bytes(512))
    assert list(text_lines(path, what="text")) == ["one", "two"]
    with path.open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(DataError, match="followed by millions of zeros"):
        list(text_lines(path, what="text"))


def test_a_glove_name_that_no_file_can_have(tmp_path: Path) -> None:
    name = tmp_path / ("x" * 300)
    assert find_glove(name) == name
    with pytest.raises(TextError, match="No GloVe file at"):
        glove_vectors(name, ["a"], dim=3)


def test_standard_input_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)  # as `< FOLDER` in a shell
    with pytest.raises(DataError, match="standard input cannot be read: Is a directory"):
        list(read_questions(_lines(descriptor), source="standard input", video=None, duration=None))


def _lines(descriptor: int) -> Iterator[str]:
    try:
        yield os.read(descriptor, 10).decode()
    finally:
        os.close(descriptor)


def test_a_line_that_does_not_fit_in_memory_is_refused() -> None:
    def lines() -> Iterator[str]:
        yield "he cuts"
        raise MemoryError

    with pytest.raises(DataError, match="standard input, line 2 is too long"):
        list(read_questions(lines(), source="standard input", video="v", duration=None))
