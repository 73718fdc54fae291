"""Downloads weights files into the cache, atomically and verified; only on explicit request."""

from __future__ import annotations

import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, cast

from filelock import FileLock, Timeout

from mesm_core.backbones.weights import (
    Progress,
    Weights,
    by_hand,
    check_hash,
    discard,
    file_hash,
    note,
    weights_folder,
)
from mesm_core.errors import FeatureError, OutputError
from mesm_core.files import continued, make_folder, write_atomically
from mesm_core.inputs import reason
from mesm_core.places import NO_ROOM, could_not_write, explained, need_room, refuse_existing

PARTIAL = ".partial"
SECONDS = 30.0
"""Seconds without data after which a connection counts as broken."""
TRIES = 3
"""Limit of consecutive attempts that received no data."""
BLOCK = 2**18
LARGEST = 64 * 2**30
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
_TRUE = {"1", "on", "yes", "true"}


class _BrokenError(Exception):
    """A broken connection; the data received so far is kept."""


def pull(entry: Weights, *, overwrite: bool = False, progress: Progress | None = None) -> Path:
    """Download a weights file to its path in the cache, and return the path.

    A broken transfer from a URL is resumed, also by a later call; one from Hugging Face is resumed only within a call.
    The file is moved to its path only if it is complete and its checksum is correct.

    Args:
        overwrite: download the file even if it exists.
        progress: called with the number of bytes of each block, and of a part that an earlier call downloaded.

    Raises:
        FeatureError: the server or the file cannot be reached, the connection breaks repeatedly, or the file differs
            from the expected one; OutputError: the disk is full, or the cache cannot be written.
    """
    target = weights_folder() / entry.file
    refuse_existing(target, overwrite=overwrite)
    if any(os.environ.get(name, "").lower() in _TRUE for name in OFFLINE):
        raise _offline(entry, f"{OFFLINE[0]} is set")
    parts = weights_folder() / PARTIAL / entry.name
    make_folder(parts)
    with _locked(entry, parts):
        fetched = (_from_url if entry.huggingface is None else _from_hub)(entry, parts, progress)
        digest = file_hash(fetched)
        try:
            check_hash(entry, digest, entry.source)
        except FeatureError:
            discard(parts)
            raise
        with explained(target):
            fetched.replace(target)
        note(target, digest)
        discard(parts)
    return target


@contextmanager
def _locked(entry: Weights, parts: Path) -> Iterator[None]:
    lock = FileLock(parts.with_name(f"{entry.name}.lock"))
    with explained(parts):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"Another process is downloading the weights '{entry.name}'.", hint="Wait for it to end."
            ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # not empty if a partial file is kept
            parts.rmdir()
        lock.release()


def _from_url(entry: Weights, parts: Path, progress: Progress | None) -> Path:
    part, tag = parts / entry.file, parts / f"{entry.file}.etag"
    failed = 0
    if progress is not None and part.exists():
        progress(part.stat().st_size)
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _fetch_rest(entry, part, tag, progress)
            return part
        except _BrokenError as error:
            grown = part.exists() and part.stat().st_size > before
            failed = 1 if grown else failed + 1
            if failed >= TRIES:
                raise _offline(entry, str(error), kept=part.exists()) from error


def _fetch_rest(entry: Weights, part: Path, tag: Path, progress: Progress | None) -> None:
    """Download the missing rest of a file.

    Raises:
        _BrokenError: the connection broke; FeatureError, OutputError: another attempt would fail, too.
    """
    done = part.stat().st_size if part.exists() else 0
    etag = tag.read_text(encoding="latin-1") if tag.exists() else ""
    if done and not etag and entry.sha256 is None:
        # Without a checksum or tag, the rest could belong to another file.
        done = 0
    headers = {"User-Agent": "mesm", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-"} | ({"If-Range": etag} if etag else {})
    request = urllib.request.Request(cast("str", entry.url), headers=headers)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            _handle_status(entry, error, part, done)
        return
    except (OSError, HTTPException) as error:
        raise _BrokenError(_cause(error)) from error
    with response:
        done, size = _check_response(entry, response, done)
        need_room(weights_folder() / entry.file, size - done if size else 0)
        write_atomically(tag, (response.headers.get("ETag") or "").encode("latin-1", "ignore"))
        with _open_part(entry, part, done, size) as file:
            _receive(response, file, done, size, progress)


def _handle_status(entry: Weights, error: urllib.error.HTTPError, part: Path, done: int) -> None:
    """Return if a server error means that the file is already complete; otherwise raise the matching error."""
    if error.code == 416 and done:
        found = _RANGE.fullmatch(error.headers.get("Content-Range") or "")
        if found and int(found[2]) == done:
            return
        discard(part)
        raise _BrokenError("the part downloaded earlier does not belong to the file")
    if error.code in {408, 425, 429} or error.code >= 500:
        raise _BrokenError(f"the server answered {error.code} {error.reason}")
    raise FeatureError(
        f"{entry.source} is not available: the server answered {error.code} {error.reason}.",
        hint=f"The file may have moved. {by_hand(entry)}",
    )


def _check_response(entry: Weights, response: HTTPResponse, done: int) -> tuple[int, int | None]:
    """Return the offset of the first byte that the server sends, and the size of the file, or None if unknown.

    Raises:
        FeatureError: the response is not the requested file.
    """
    if (response.headers.get_content_type() or "") == "text/html":
        raise FeatureError(
            f"{entry.source} sent a web page, not {entry.file}.",
            hint=f"Does the network require a login? {by_hand(entry)}",
        )
    length = response.headers.get("Content-Length")
    size = int(length) if length and length.isdecimal() else None
    if response.status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range") or "")
        if not found or found[1] is None or int(found[1]) != done:
            raise FeatureError(f"{entry.source} did not send the requested part of the file.")
        size = int(found[2])
    else:
        done = 0
    if size is not None and (size > LARGEST or (entry.sha256 and entry.size and size != entry.size)):
        expected = f"at most {LARGEST:,}" if entry.size is None else f"{entry.size:,}"
        raise FeatureError(
            f"{entry.source} has {size:,} bytes; expected {expected}.",
            hint=f"Nothing was downloaded. {by_hand(entry)}",
        )
    return done, size


@contextmanager
def _open_part(entry: Weights, part: Path, done: int, size: int | None) -> Iterator[IO[bytes]]:
    """Yield the partial file, open for appending; it is removed if the disk is full."""
    target = weights_folder() / entry.file
    try:
        with continued(part, at=done) as file:
            yield file
    except OSError as error:
        failure = could_not_write(target, error, needs=size, temporary=part)
        if error.errno in NO_ROOM:
            discard(part.parent)
        raise failure from error


def _receive(response: HTTPResponse, file: IO[bytes], done: int, size: int | None, progress: Progress | None) -> None:
    limit = LARGEST if size is None else size
    while done < limit:
        try:
            block = response.read(min(BLOCK, limit - done))
        except (OSError, HTTPException) as error:
            raise _BrokenError(_cause(error)) from error
        if not block:
            break
        view = memoryview(block)
        while view:
            view = view[file.write(view) :]
        done += len(block)
        if progress is not None:
            progress(len(block))
    if size is not None and done < size:
        raise _BrokenError(f"the connection broke after {done:,} of {size:,} bytes")


def _from_hub(entry: Weights, parts: Path, progress: Progress | None) -> Path:
    """Download a file with huggingface_hub, which resumes within the call and checks the size."""
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants
    except ImportError as error:
        raise FeatureError(
            f"'{entry.name}' is on Hugging Face; downloading from there needs the package huggingface_hub.",
            hint=f"pip install 'mesm[hub]'. {by_hand(entry)}",
        ) from error
    logging.getLogger(hub.__name__).setLevel(logging.ERROR)  # it prints a message for each retry
    constants.HF_HUB_DISABLE_TELEMETRY = True  # it sends additional requests
    assert entry.huggingface is not None
    assert entry.path is not None
    target, endpoint = weights_folder() / entry.file, os.environ.get("HF_ENDPOINT") or None
    size: int | None = entry.size
    try:
        # Requested first, since it makes no retries: without a network it fails at once.
        address = hub.hf_hub_url(entry.huggingface, entry.path, revision=entry.revision, endpoint=endpoint)
        size = hub.get_hf_file_metadata(address, timeout=SECONDS, token=False, endpoint=endpoint).size
        need_room(target, size or 0)
        bar = _bar(progress or (lambda _: None))
        fetched = hub.hf_hub_download(
            entry.huggingface,
            entry.path,
            revision=entry.revision,
            endpoint=endpoint,
            local_dir=parts,
            token=False,
            tqdm_class=bar,
        )
        return Path(fetched)
    except OutputError:
        raise
    except Exception as error:  # errors of the hub, of its HTTP library, and of the system
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            discard(parts)
            raise could_not_write(target, error, needs=size) from error
        discard(parts)
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None and 400 <= status < 500:
            raise FeatureError(
                f"{entry.source} is not available: the server answered {status}.",
                hint=f"The file may have moved. {by_hand(entry)}",
            ) from error
        raise _offline(entry, reason(error)) from error


def _bar(progress: Progress) -> type[Any]:
    """Return a replacement for the progress bar that huggingface_hub prints."""
    from tqdm.std import tqdm

    class Bar(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
        """Reports progress without printing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"disable": True}))

        def update(self, n: float | None = 1) -> bool | None:
            """Count bytes."""
            progress(int(n or 0))
            return None

    return Bar


def _offline(entry: Weights, cause: str, *, kept: bool = False) -> FeatureError:
    resumable = f" The downloaded part is kept; `mesm weights pull {entry.name}` continues it." if kept else ""
    return FeatureError(
        f"{entry.file} could not be downloaded from {entry.source}: {cause}.{resumable}", hint=by_hand(entry)
    )


def _cause(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return reason(cause) if isinstance(cause, BaseException) else str(cause)
