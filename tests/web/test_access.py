"""Access control: allowed hosts and origins, tokens, cookies, and security headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mesm_core.errors import ConfigError, DataError
from mesm_core.web.guard import checked_names
from mesm_core.web.login import COOKIE, Keys
from mesm_core.web.token import chosen_token
from tests.web.made import KnownCollection, served

TOKEN = "a-token-of-some-length"
QUERY = {"query": "a person opens the door"}


@pytest.fixture(scope="module")
def locked(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of a server that requires a token and allows the proxy host films.example."""
    folder = tmp_path_factory.mktemp("locked")
    settings = {"token": TOKEN, "host": "0.0.0.0", "allowed_hosts": ("films.example",)}
    with served(KnownCollection(clip), folder, **settings) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "a@localhost", "localhost/x", "192.168.0.9"]
)
def test_a_server_of_this_machine_answers_to_its_own_names_only(client: httpx.Client, host: str) -> None:
    assert client.get("/api/videos", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:99", "LOCALHOST"])
def test_own_names_are_accepted_with_any_port(client: httpx.Client, host: str) -> None:
    assert client.get("/api/videos", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(("host", "status"), [("films.example", 200), ("10.1.2.3:80", 200), ("evil.example", 400)])
def test_other_servers_answer_to_addresses_and_allowed_names(locked: httpx.Client, host: str, status: int) -> None:
    headers = {"host": host, "authorization": f"Bearer {TOKEN}"}
    assert locked.get("/api/videos", headers=headers).status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://films.example.evil"])
def test_requests_from_pages_of_other_servers_are_refused(client: httpx.Client, origin: str) -> None:
    assert client.post("/api/search", json=QUERY, headers={"origin": origin}).status_code == 403
    assert client.get("/api/videos", headers={"origin": origin}).status_code == 403


def test_requests_from_the_own_page_are_accepted(client: httpx.Client) -> None:
    own = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert client.post("/api/search", json=QUERY, headers=own).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_may_link_to_the_page_but_not_load_its_videos(client: httpx.Client, site: str) -> None:
    from_link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=from_link).status_code == 200
    assert client.post("/api/search", json=QUERY, headers=from_link).status_code == 403
    assert client.get("/api/videos", headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}).status_code == 403


def test_allowed_names_may_have_a_port() -> None:
    assert checked_names(["Films.example:8443", "10.0.0.1", "[::1]:80"]) == ("films.example", "10.0.0.1", "::1")
    for name in ("", "https://films.example", "a/b", "user@films.example", "films.example:port"):
        with pytest.raises(ConfigError, match="not the name of a host"):
            checked_names([name])


def test_a_proxy_may_change_the_host(locked: httpx.Client) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "origin": "https://films.example"}
    assert locked.post("/api/search", json=QUERY, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/videos", "/api/none", "/login"])
def test_every_answer_tells_browsers_what_the_page_may_do(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def test_the_page_has_no_inline_script_or_style(client: httpx.Client) -> None:
    text = client.get("/").text
    assert "style=" not in text
    assert "<style" not in text
    assert "onclick" not in text
    assert text.count("<script") == 1
    assert "http://" not in text.replace(str(client.base_url), "")
    assert "https://" not in text


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", f"Bearer é{TOKEN}"]
)
def test_without_the_token_nothing_about_the_videos_is_told(locked: httpx.Client, given: str | None) -> None:
    headers = {} if given is None else {"authorization": given.encode()}
    for method, path in [
        ("GET", "/api/videos"),
        ("POST", "/api/search"),
        ("GET", "/api/openapi.json"),
        ("GET", "/none"),
    ]:
        found = locked.request(method, path, headers=headers)
        assert found.status_code == 401
        assert found.headers["www-authenticate"] == "Bearer"
        assert "kitchen" not in found.text
    assert locked.get("/", headers=headers).headers["location"] == "/login"
    assert locked.get("/api/health", headers=headers).status_code == 200


def test_a_token_in_the_address_is_not_accepted(locked: httpx.Client) -> None:
    assert locked.get(f"/api/videos?token={TOKEN}").status_code == 401


def test_the_login_form_sets_a_cookie_that_scripts_cannot_read(locked: httpx.Client) -> None:
    wrong = locked.post("/login", data={"token": "wrong"})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert "This token is wrong." in wrong.text
    right = locked.post("/login", data={"token": TOKEN})
    cookie = right.headers["set-cookie"]
    assert (right.status_code, right.headers["location"]) == (303, "/")
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    value = Keys(TOKEN).cookie
    assert locked.get("/api/videos", headers={"cookie": f"{COOKIE}={value}"}).status_code == 200
    assert locked.get("/api/videos", headers={"cookie": f"{COOKIE}={value[:-1]}"}).status_code == 401
    locked.cookies.clear()


def test_the_cookie_is_for_https_only_behind_a_proxy_that_speaks_it(locked: httpx.Client) -> None:
    headers = {"x-forwarded-proto": "https"}
    assert "secure" in locked.post("/login", data={"token": TOKEN}, headers=headers).headers["set-cookie"].lower()
    locked.cookies.clear()


@pytest.mark.parametrize("body", [b"\xff\xfe", b"token=%ff", b"&".join([b"a=1"] * 50), b"token"])
def test_odd_login_forms_are_wrong_tokens(locked: httpx.Client, body: bytes) -> None:
    assert locked.post("/login", content=body).status_code == 401
    assert locked.post("/login", content=body * 40_000).status_code == 413


def test_a_token_is_made_where_other_machines_can_reach_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESM_TOKEN", raising=False)
    assert chosen_token(None, "127.0.0.1") == (None, False)
    token, made = chosen_token(None, "0.0.0.0")
    assert made
    assert token is not None
    assert len(token) >= 32
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert chosen_token(tmp_path / "token", "127.0.0.1") == (TOKEN, False)
    monkeypatch.setenv("MESM_TOKEN", TOKEN)
    assert chosen_token(None, "::") == (TOKEN, False)


@pytest.mark.parametrize("content", ["", "short", "with spaces in the middle", "ünicode-of-some-length"])
def test_weak_tokens_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match="at least 16 characters"):
        chosen_token(tmp_path / "token", "0.0.0.0")
    with pytest.raises(DataError, match="No file with a token"):
        chosen_token(tmp_path / "none", "0.0.0.0")
