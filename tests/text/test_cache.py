from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mesm_core.errors import MesmError, OutputError, TextError
from mesm_core.text import cache as cache_module
from mesm_core.text.cache import TextCache, default_cache_path

VECTORS = np.arange(6, dtype=np.float16).reshape(2, 3)


def failures_of_eight_processes(folder: Path, trials: int) -> list[str]:
    """Return what failed while eight processes opened, wrote and read ``trials`` fresh caches together."""
    script = Path(__file__).with_name("sharing_cache.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(trials)],
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    failures: list[str] = json.loads(done.stdout)
    return failures


def test_processes_may_open_a_fresh_cache_together(tmp_path: Path) -> None:
    assert failures_of_eight_processes(tmp_path, 5) == []


@pytest.mark.slow
def test_processes_may_open_two_hundred_fresh_caches_together(tmp_path: Path) -> None:
    assert failures_of_eight_processes(tmp_path, 200) == []


def test_opening_a_fresh_cache_waits_for_another_process(tmp_path: Path) -> None:
    path = tmp_path / "text.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, other.execute, ["COMMIT"])
    release.start()
    TextCache(path).write({b"key": VECTORS})
    release.join()
    other.close()
    assert len(TextCache(path).read({"name": b"key"})) == 1


def filled(path: Path) -> Path:
    TextCache(path).write({b"key": VECTORS})
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE text SET data = x'0102030405'",
        "UPDATE text SET data = x'0001020304050607'",
        "UPDATE text SET data = x''",
        "UPDATE text SET data = NULL",
        "UPDATE text SET data = 'twelve chars'",
        "UPDATE text SET data = 3.5",
        "UPDATE text SET data = x'007c00000000000000000000'",  # infinity
        "UPDATE text SET data = x'007e00000000000000000000'",  # NaN
        "UPDATE text SET width = 0",
        "UPDATE text SET width = -3",
        "UPDATE text SET width = NULL",
        "UPDATE text SET width = 'three'",
        "UPDATE text SET width = 6",
        "UPDATE text SET width = 9223372036854775807",
    ],
)
def test_damaged_entries_are_refused(tmp_path: Path, statement: str) -> None:
    path = filled(tmp_path / "text.sqlite")
    assert np.array_equal(TextCache(path).read({"name": b"key"}, width=3)["name"], VECTORS)
    change(path, statement)
    with pytest.raises(TextError) as raised:
        TextCache(path).read({"name": b"key"}, width=3)
    assert str(path) in raised.value.message
    assert "Delete the file" in str(raised.value.hint)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE text (id INTEGER PRIMARY KEY, body TEXT)"],
        ["CREATE TABLE text (key BLOB, width INT, data BLOB)"],
        ["CREATE TABLE bookmarks (url TEXT)"],
        ["CREATE VIEW text AS SELECT 1 AS key, 2 AS width, 3 AS data"],
        [cache_module.SCHEMA, "PRAGMA application_id = 7"],
        [cache_module.SCHEMA, "PRAGMA user_version = 2"],
        ["PRAGMA user_version = 2"],
    ],
)
def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path, statements: list[str]) -> None:
    path = tmp_path / "text.sqlite"
    change(path, *statements)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="another program") as raised:
        TextCache(path)
    assert str(path) in raised.value.message
    assert path.read_bytes() == before


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "text.sqlite")
    TextCache(path).write({f"{n}".encode(): np.ones((40, 64), np.float16) for n in range(40)})
    whole = path.read_bytes()
    for spoilt in (b"not a database at all" * 100, whole[:5000], whole[:4096] + b"\xff" * (len(whole) - 4096)):
        path.write_bytes(spoilt)
        with pytest.raises(OutputError, match=r"text\.sqlite cannot be used") as raised:
            TextCache(path).read({f"{n}": f"{n}".encode() for n in range(40)})
        assert raised.value.hint == cache_module.DELETE


def test_files_of_the_first_release_are_read(tmp_path: Path) -> None:
    path = tmp_path / "text.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS text (key BLOB PRIMARY KEY, width INT, data BLOB)")
        connection.execute("INSERT INTO text VALUES (?, ?, ?)", (b"key", 3, VECTORS.tobytes()))
    cache = TextCache(path)
    cache.write({b"other": VECTORS})
    assert sorted(cache.read({"a": b"key", "b": b"other"}, width=3)) == ["a", "b"]


def test_places_that_cannot_hold_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "folder.sqlite", tmp_path / "file" / "text.sqlite", Path("/dev/full")):
        with pytest.raises(OutputError) as raised:
            TextCache(path)
        assert str(path) in raised.value.message
        assert "MESM_CACHE" in str(raised.value.hint)
    monkeypatch.delenv("MESM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(OutputError, match="no home folder"):
        default_cache_path()


@pytest.mark.parametrize(
    ("pragma", "reason", "hint"),
    [
        ("PRAGMA max_page_count = 4", "database or disk is full", "Free some space"),
        ("PRAGMA query_only = ON", "readonly", "can be written"),
    ],
)
def test_what_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pragma: str, reason: str, hint: str
) -> None:
    cache = TextCache(filled(tmp_path / "text.sqlite"))
    connect = sqlite3.connect

    def limited(path: Path, **options: object) -> sqlite3.Connection:
        connection = connect(path, **options)
        connection.execute(pragma)
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", limited)
        with pytest.raises(OutputError, match=reason) as raised:
            cache.write({b"big": np.ones((77, 512), np.float16)})
    assert hint in str(raised.value.hint)
    assert list(cache.read({"old": b"key", "new": b"big"})) == ["old"]


def test_a_lock_that_never_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path / "text.sqlite")
    monkeypatch.setattr(cache_module, "TIMEOUT_SECONDS", 0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MesmError) as raised:
            TextCache(path)
    assert "Another program holds the file" in str(raised.value.hint)
