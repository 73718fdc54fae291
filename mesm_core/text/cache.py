"""Cache of encoded sentences: one SQLite file that several processes can share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from mesm_core.caches import cache_folder
from mesm_core.errors import OutputError, TextError
from mesm_core.text.encoder import in_batches

TIMEOUT_SECONDS = 60
QUERY_KEYS = 500
APPLICATION_ID = 0x4D45534D  # "MESM"
VERSION = 1
SCHEMA = "CREATE TABLE text (key BLOB PRIMARY KEY, width INT, data BLOB)"
COLUMNS = [("key", "BLOB", 1), ("width", "INT", 0), ("data", "BLOB", 0)]
CHOOSE_ANOTHER = "Set MESM_CACHE to a folder that can be written."
DELETE = "Delete the file, or set MESM_CACHE to another folder; the sentences are then encoded again."


def default_cache_path() -> Path:
    """Return ``$MESM_CACHE/text.sqlite``, or ``text.sqlite`` in the user's cache folder.

    Raises:
        OutputError: the user has no home folder.
    """
    return cache_folder() / "text.sqlite"


class TextCache:
    """Word vectors (w, Dt) float16 by key. SQLite's locks coordinate concurrent processes.

    The file uses a rollback journal, not a write-ahead log. Enabling the log in a new file fails immediately with
    "database is locked" if another process has the file open, regardless of the timeout.

    Args:
        path: the file; it is created if missing.

    Raises:
        OutputError: the file cannot be opened, or belongs to another program.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error.strerror or str(error), CHOOSE_ANOTHER) from error
        with self._connection() as connection:
            connection.execute("BEGIN")  # one snapshot, while another process may be creating the table
            ready = self._is_ready(connection)
            connection.execute("COMMIT")
            if not ready:
                self._create(connection)

    def read(self, keys: Mapping[str, bytes], *, width: int | None = None) -> dict[str, np.ndarray]:
        """Return the cached vectors (w, Dt) float16 of sentences (name -> key), by name.

        Args:
            width: Dt of the encoder, or None to allow any width.

        Raises:
            OutputError: the file cannot be read; TextError: an entry is damaged or has another width.
        """
        names = {key: name for name, key in keys.items()}
        found: dict[str, np.ndarray] = {}
        with self._connection() as connection:
            for part in in_batches(list(names), QUERY_KEYS):
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT key, width, data FROM text WHERE key IN ({marks})", part)
                for key, stored_width, blob in rows:
                    found[names[key]] = self._vectors(stored_width, blob, width)
        return found

    def write(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Store vectors (w, Dt) by key. Existing entries are kept.

        Raises:
            OutputError: the file cannot be written.
        """
        rows = [(key, array.shape[1], array.astype(np.float16).tobytes()) for key, array in vectors.items()]
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO text VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")

    def count(self) -> int:
        """Return the number of sentences."""
        with self._connection() as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM text").fetchone()
        return int(count)

    def clear(self) -> None:
        """Remove all sentences and free their disk space.

        Raises:
            OutputError: the file cannot be written.
        """
        with self._connection() as connection:
            connection.execute("DELETE FROM text")
            connection.execute("VACUUM")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection with manual transactions; SQLite errors are raised with the path of the file."""
        try:
            with closing(sqlite3.connect(self._path, timeout=TIMEOUT_SECONDS, isolation_level=None)) as connection:
                yield connection
        except sqlite3.OperationalError as error:
            hint = CHOOSE_ANOTHER
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                hint = "Another program holds the file: wait until it ends, or set MESM_CACHE to another folder."
            elif error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                hint = "Free some space, or set MESM_CACHE to a folder on another disk."
            elif error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR:
                hint = DELETE
            raise self._unusable(str(error), hint) from error
        except sqlite3.Error as error:
            raise self._unusable(str(error), DELETE) from error

    def _is_ready(self, connection: sqlite3.Connection) -> bool:
        """Return whether the table exists; False for an empty file.

        Raises:
            OutputError: the file contains something else.
        """
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type != 'index'")]
        if (application, version, tables) == (0, 0, []):
            return False
        columns = [(row[1], row[2], row[5]) for row in connection.execute("PRAGMA table_info(text)")]
        # Files of the first release have neither number.
        if (application, version) not in ((0, 0), (APPLICATION_ID, VERSION)) or columns != COLUMNS:
            raise self._unusable("it is a database of another program or version", DELETE)
        return True

    def _create(self, connection: sqlite3.Connection) -> None:
        # One process holds this lock and creates the table; the others wait, and then find it.
        connection.execute("BEGIN IMMEDIATE")
        if not self._is_ready(connection):
            connection.execute(SCHEMA)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    def _vectors(self, stored_width: object, blob: object, width: int | None) -> np.ndarray:
        """Return an entry as (w, Dt) float16, or raise TextError if it is damaged."""
        if not isinstance(stored_width, int) or stored_width < 1 or not isinstance(blob, bytes):
            raise self._damaged("its width or its numbers are missing")
        if width is not None and stored_width != width:
            raise self._damaged(f"it is {stored_width} wide, the encoder's vectors are {width}")
        if not blob or len(blob) % (2 * stored_width):
            raise self._damaged(f"{len(blob)} bytes are not vectors of {stored_width} float16 numbers")
        vectors = np.frombuffer(blob, np.float16).reshape(-1, stored_width)
        if not np.isfinite(vectors).all():
            raise self._damaged("it holds NaN or infinity")
        return vectors

    def _damaged(self, what: str) -> TextError:
        return TextError(f"The text cache {self._path} has a damaged entry: {what}.", hint=DELETE)

    def _unusable(self, reason: str, hint: str) -> OutputError:
        return OutputError(f"The text cache {self._path} cannot be used: {reason}.", hint=hint)
