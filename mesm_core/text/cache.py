"""Encoded sentences on disk: one SQLite file that several processes may share."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from mesm_core.errors import OutputError
from mesm_core.text.encoder import in_batches

TIMEOUT_SECONDS = 60
QUERY_KEYS = 500


def default_cache_path() -> Path:
    """Return ``$MESM_CACHE/text.sqlite``, else the same in the user's cache folder."""
    folder = os.environ.get("MESM_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesm"
    return Path(folder) / "text.sqlite"


class TextCache:
    """Word vectors (w, Dt) float16 by key; SQLite's locks keep concurrent writers apart.

    Args:
        path: the file; made where it is not there.

    Raises:
        OutputError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("CREATE TABLE IF NOT EXISTS text (key BLOB PRIMARY KEY, width INT, data BLOB)")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"The text cache {path} cannot be used: {error}.",
                hint="Set MESM_CACHE to a folder that can be written; a damaged cache file may be deleted.",
            ) from error

    def read(self, keys: Mapping[str, bytes]) -> dict[str, np.ndarray]:
        """Return the vectors of the sentences (name -> key) that are there, by name."""
        names = {key: name for name, key in keys.items()}
        found: dict[str, np.ndarray] = {}
        with closing(self._connect()) as connection:
            for part in in_batches(list(names), QUERY_KEYS):
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT key, width, data FROM text WHERE key IN ({marks})", part)
                for key, width, blob in rows:
                    found[names[key]] = np.frombuffer(blob, np.float16).reshape(-1, width)
        return found

    def write(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Keep vectors by key; what is there already stays."""
        rows = [(key, array.shape[1], array.astype(np.float16).tobytes()) for key, array in vectors.items()]
        with closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR IGNORE INTO text VALUES (?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=TIMEOUT_SECONDS)
