"""Weights files by name: their sources, their paths, and checks of their content.

``weights.toml`` is the table of sources. ``fetching.py`` downloads files; this module never does.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from mesm_core.caches import cache_folder
from mesm_core.errors import ConfigError, FeatureError, did_you_mean, listing
from mesm_core.files import replacing, write_atomically
from mesm_core.inputs import parse_toml, read_text, reading
from mesm_core.places import need_room, refuse_existing, size_text

TABLE = Path(__file__).with_name("weights.toml")
VARIABLE = "MESM_WEIGHTS"
FOLDER = "weights"
BLOCK = 2**20
State = Literal["verified", "unverified", "wrong", "missing"]
Progress = Callable[[int], None]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_PLAIN = re.compile(r"[\w][\w.+-]*")


@dataclass(frozen=True, slots=True)
class Weights:
    """An entry of ``weights.toml``; ``purpose`` is its key ``for``.

    Raises:
        ConfigError: the entry has not exactly one source, or has an invalid value.
    """

    name: str
    file: str
    purpose: str = ""
    licence: str = "unknown"
    url: str | None = None
    huggingface: str | None = None
    revision: str = "main"
    path: str | None = None
    sha256: str | None = None
    size: int | None = None
    instead_of: str | None = None

    def __post_init__(self) -> None:
        wrong = {
            "name": not _PLAIN.fullmatch(self.name),
            "file": not _PLAIN.fullmatch(self.file),
            "url": self.url is not None and not self.url.startswith(("https://", "http://")),
            "huggingface": self.huggingface is not None and not _REPOSITORY.fullmatch(self.huggingface),
            "path": self.path is not None and (self.path.startswith("/") or ".." in PurePosixPath(self.path).parts),
            "sha256": self.sha256 is not None and not _SHA256.fullmatch(self.sha256),
            "size": self.size is not None and self.size <= 0,
        }
        bad = [key for key, is_wrong in wrong.items() if is_wrong]
        if bad:
            raise ConfigError(f"The weights '{self.name}' have an invalid value: {bad[0]} = {getattr(self, bad[0])!r}.")
        if (self.url is None) == (self.huggingface is None) or (self.huggingface is None) != (self.path is None):
            raise ConfigError(f"The weights '{self.name}' need either a url, or huggingface and path.")

    @property
    def source(self) -> str:
        """The address of the file."""
        if self.url is not None:
            return self.url
        return f"https://huggingface.co/{self.huggingface}/resolve/{self.revision}/{self.path}"

    def as_json(self) -> dict[str, Any]:
        """Return the entry as JSON-able values."""
        return {"name": self.name, "file": self.file, "for": self.purpose, "licence": self.licence,
                "source": self.source, "sha256": self.sha256, "verified": self.sha256 is not None,
                "size": self.size, "instead_of": self.instead_of}  # fmt: skip


def table() -> dict[str, Weights]:
    """Return all weights by name: the packaged table, overridden by the table at ``$MESM_WEIGHTS``.

    Raises:
        ConfigError: that file is missing, is not TOML, or has an unknown key or an invalid value.
    """
    own = os.environ.get(VARIABLE)
    return _read_table(TABLE) | ({} if not own else _read_table(Path(own)))


def file_exists(path: Path) -> bool:
    """Return whether a path is a file; False for names that are too long for the system."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises there)


def known_weights(name: str) -> Weights:
    """Return the entry of a name.

    Raises:
        FeatureError: there are no weights with that name.
    """
    entries = table()
    if name not in entries:
        raise FeatureError(
            f"No weights are called '{name}'.{did_you_mean(name, entries)}", hint=f"Known: {listing(entries)}."
        )
    return entries[name]


def weights_folder() -> Path:
    """Return the folder ``weights`` in ``$MESM_CACHE`` or, by default, in the user's cache folder.

    Raises:
        OutputError: the user has no home folder.
    """
    return cache_folder() / FOLDER


def places(entry: Weights, *, root: Path | None = None) -> list[Path]:
    """Return the possible paths of a weights file, in search order.

    Args:
        root: the data folder.
    """
    data = [] if root is None else [root / FOLDER / entry.file, root / entry.file]
    return [*data, weights_folder() / entry.file]


def find_weights(name: str, *, root: Path | None = None) -> Path | None:
    """Return the path of the named weights, in any format of the table, or None if there is no file.

    Nothing is downloaded, and the content is not checked.

    Args:
        root: the data folder.

    Raises:
        FeatureError: the name is unknown.
    """
    first = known_weights(name)
    alternatives = [entry for entry in table().values() if entry.instead_of == name]
    paths = (path for entry in (first, *alternatives) for path in places(entry, root=root))
    return next((path for path in paths if file_exists(path)), None)


def require_weights(name: str, *, root: Path | None = None) -> Path:
    """Return the path of the named weights, in any format of the table.

    Args:
        root: the data folder.

    Raises:
        FeatureError: the name is unknown, or there is no file; the message says which file to put where.
    """
    found = find_weights(name, root=root)
    if found is None:
        entry = known_weights(name)
        raise FeatureError(
            f"The weights '{name}' ({entry.purpose}) were not found.",
            hint=f"`mesm weights pull {name}` downloads them. {by_hand(entry)}",
        )
    return found


def by_hand(entry: Weights) -> str:
    """Return instructions for installing the file without a network connection."""
    target = weights_folder() / entry.file
    return (
        f"By hand: download {entry.source} on a machine with a network, and copy it to {target} "
        f"(or: mesm weights pull {entry.name} --from FILE)."
    )


def state_of(entry: Weights, path: Path, *, progress: Progress | None = None) -> State:
    """Return whether a file matches its entry in the table, after reading all of it.

    ``unverified``: the table has no checksum; if the file was downloaded by mesm, it is unchanged since then.

    Raises:
        FeatureError: the file cannot be read.
    """
    if not file_exists(path):
        return "missing"
    wanted = entry.sha256 or _noted_hash(path)
    if wanted is not None and file_hash(path, progress=progress) != wanted:
        return "wrong"
    return "unverified" if entry.sha256 is None else "verified"


def take_file(entry: Weights, source: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Path:
    """Copy a local weights file to its path in the cache after checking it, and return the path.

    Raises:
        FeatureError: the file is missing, or differs from the one in the table; OutputError: it could not be written,
            or the target exists and ``overwrite`` is off.
    """
    target = weights_folder() / entry.file
    if not file_exists(source):
        raise FeatureError(f"No weights file at {source}.")
    if target.exists() and target.samefile(source):
        check_hash(entry, file_hash(source, progress=progress), source)
        return target
    refuse_existing(target, overwrite=overwrite)
    size = source.stat().st_size
    need_room(target, size)
    digest = hashlib.sha256()
    with replacing(target, needs=size) as temporary:
        with source.open("rb") as file, temporary.open("wb") as copy:
            while block := file.read(BLOCK):
                digest.update(block)
                copy.write(block)
                if progress is not None:
                    progress(len(block))
        check_hash(entry, digest.hexdigest(), source)
    note(target, digest.hexdigest())
    return target


def check_hash(entry: Weights, digest: str, where: object) -> None:
    """Raise FeatureError if a file's SHA-256 differs from that in the table."""
    if entry.sha256 is not None and digest != entry.sha256:
        raise FeatureError(
            f"{where} is not {entry.file} of '{entry.name}': its SHA-256 is {digest}, not {entry.sha256}.",
            hint=f"The file was not used. The right file is {entry.source}.",
        )


def file_hash(path: Path, *, progress: Progress | None = None) -> str:
    """Return a file's SHA-256 in hexadecimal digits.

    Raises:
        FeatureError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with reading(path, FeatureError, what="weights file"), path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


def note(path: Path, digest: str) -> None:
    """Write a file's SHA-256 beside it, in the format of ``sha256sum``, to detect later damage."""
    write_atomically(_note_path(path), f"{digest}  {path.name}\n".encode())


def discard(path: Path) -> None:
    """Remove a file or folder of an unfinished transfer."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(entry: Weights) -> str:
    """Return the size of a weights file with its unit, or ``?``."""
    return "?" if entry.size is None else size_text(entry.size)


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _noted_hash(path: Path) -> str | None:
    """Return the SHA-256 that was noted when the file was downloaded, or None."""
    if not file_exists(_note_path(path)):
        return None
    digest = read_text(_note_path(path), error=FeatureError).partition(" ")[0].strip()
    return digest if _SHA256.fullmatch(digest) else None


@cache
def _keys() -> Mapping[str, str]:
    """Return the field of ``Weights`` for each key of a table's entries."""
    return {"for" if field.name == "purpose" else field.name: field.name for field in fields(Weights)[1:]}


def _read_table(path: Path) -> dict[str, Weights]:
    content = parse_toml(read_text(path, error=ConfigError, what="table of weights"), path, error=ConfigError)
    entries = {}
    for name, values in content.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: '{name}' is not a table.")
        for key, value in values.items():
            if key not in _keys():
                raise ConfigError(f"{path}: '{name}' has an unknown key '{key}'.{did_you_mean(key, _keys())}")
            if not isinstance(value, int if key == "size" else str):
                raise ConfigError(f"{path}: '{name}' has {key} = {value!r}, which is of the wrong type.")
        if "file" not in values:
            raise ConfigError(f"{path}: '{name}' has no 'file'.")
        entries[name] = Weights(name=name, **{_keys()[key]: value for key, value in values.items()})
    return entries
