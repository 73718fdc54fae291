"""Parts of files, as HTTP's Range header asks for them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO

from fastapi import HTTPException, Request
from fastapi.responses import Response, StreamingResponse

from mesm_core.web.guard import HEADERS_ONLY

BLOCK = 256 * 1024
_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return the first byte, and the one after the last, that a Range header asks for.

    Only one range is accepted: players ask for one at a time.

    Returns:
        None if the range lies outside a file of ``size`` bytes, or the header is not one range of bytes.

    >>> parse_range("bytes=0-9", 100), parse_range("bytes=90-", 100), parse_range("bytes=-5", 100)
    ((0, 10), (90, 100), (95, 100))
    >>> parse_range("bytes=100-", 100), parse_range("bytes=0-0,2-3", 100), parse_range("bytes=9-1", 100)
    (None, None, None)
    """
    found = _ONE_RANGE.fullmatch(header.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        start, end = max(size - int(found[2]), 0), size
    else:
        start, end = int(found[1]), min(int(found[2] or size) + 1, size)
    return (start, end) if start < end else None


def file_response(path: Path, media_type: str, *, request: Request, headers: Mapping[str, str]) -> Response:
    """Return a response with a file, or with the part that the request's Range header asks for.

    Args:
        headers: further ones of the response.

    Raises:
        HTTPException: 404, the file is gone; 416, the range lies outside the file, or there are several.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise HTTPException(404, "The file of this video is gone.") from error
    status = os.fstat(file.fileno())
    size, tag = status.st_size, f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
    common = {"accept-ranges": "bytes", "etag": tag, "cache-control": "private, no-cache", **headers}
    wanted = request.headers.get("range")
    body = not getattr(request.state, HEADERS_ONLY, False)
    if wanted is None or request.headers.get("if-range", tag) != tag:
        return _stream(file, 0, size, 200, media_type, common, body=body)
    part = parse_range(wanted, size)
    if part is None:
        file.close()
        raise HTTPException(
            416, f"Ask for one range within the {size} bytes.", headers={"content-range": f"bytes */{size}"}
        )
    start, end = part
    common["content-range"] = f"bytes {start}-{end - 1}/{size}"
    return _stream(file, start, end, 206, media_type, common, body=body)


def _stream(
    file: IO[bytes], start: int, end: int, status: int, media_type: str, headers: Mapping[str, str], *, body: bool
) -> StreamingResponse:
    async def blocks() -> AsyncIterator[bytes]:
        with file:
            file.seek(start)
            left = end - start if body else 0
            while left > 0:
                block = await asyncio.to_thread(file.read, min(BLOCK, left))
                if not block:
                    return
                left -= len(block)
                yield block

    return StreamingResponse(
        blocks(), status, media_type=media_type, headers={**headers, "content-length": str(end - start)}
    )
