"""Schemathesis sends what the OpenAPI document allows, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.video.made import film
from tests.web.made import KnownCollection, served

FOUND = {
    "GET /api/health", "GET /api/videos", "POST /api/videos", "GET /api/videos/{video}", "GET /api/videos/{video}/file",
    "POST /api/locate", "POST /api/search", "POST /api/prepare", "GET /api/jobs", "GET /api/jobs/{job}",
    "DELETE /api/jobs/{job}", "GET /api/thumbnail/{video}", "GET /api/clip/{video}",
}  # fmt: skip
WITHOUT_PARAMETERS = {"GET /api/health", "GET /api/jobs"}


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The operations in the document of a server with two videos, one of them not prepared, and uploads."""
    schemathesis = pytest.importorskip("schemathesis", reason="Schemathesis is not installed")
    folder: Path = tmp_path_factory.mktemp("schema")
    (folder / "uploads").mkdir()
    collection = KnownCollection(film(folder / "a.mp4", 2), film(folder / "b.mkv", 2), prepared=False)
    collection.unprepared.pop()
    with served(collection, folder, uploads=folder / "uploads", max_upload=10_000) as client:
        schema = schemathesis.openapi.from_url(f"{client.base_url}/api/openapi.json")
        found = [result.ok() for result in schema.get_all_operations()]
        yield {operation.label: operation for operation in found}


@pytest.fixture(scope="module")
def video(operations: dict[str, Any]) -> str:
    """The id of a video that exists."""
    listed = operations["GET /api/videos"].Case().call().json()["videos"]
    return str(listed[0]["id"])


def test_the_document_describes_the_whole_api(operations: dict[str, Any]) -> None:
    assert set(operations) == FOUND


def send(operation: Any, video: str, *, allowed: bool, examples: int) -> None:
    """Send requests of one operation, half of them about a video that exists, and check the answers."""
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.response_schema_conformance,
        checks.content_type_conformance,
    ]
    mode = GenerationMode.POSITIVE if allowed else GenerationMode.NEGATIVE

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode), exists=strategies.booleans())
    def check(case: Any, exists: bool) -> None:
        if exists and "video" in (case.path_parameters or {}):
            case.path_parameters["video"] = video
        if exists and isinstance(case.body, dict) and "video" in case.body:
            case.body["video"] = video
        case.call_and_validate(checks=wanted)

    check()


CASES = [(label, True) for label in sorted(FOUND)] + [(label, False) for label in sorted(FOUND - WITHOUT_PARAMETERS)]


@pytest.mark.parametrize(("label", "allowed"), CASES)
def test_no_request_fails_in_the_server_and_answers_are_as_described(
    operations: dict[str, Any], video: str, label: str, allowed: bool
) -> None:
    send(operations[label], video, allowed=allowed, examples=10)


@pytest.mark.slow
@pytest.mark.parametrize(("label", "allowed"), CASES)
def test_no_request_of_many_fails(operations: dict[str, Any], video: str, label: str, allowed: bool) -> None:
    send(operations[label], video, allowed=allowed, examples=100)
