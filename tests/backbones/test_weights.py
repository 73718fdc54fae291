"""Weights files: the table, the search order, copies of local files, and the commands."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mesm_core.backbones import weights
from mesm_core.config.backbones import BACKBONES
from mesm_core.errors import ConfigError, FeatureError, OutputError

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, and a table of two weights files in addition to the packaged one."""
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MESM_DATA", str(tmp_path / "data"))
    table = tmp_path / "table.toml"
    address = 'url = "http://127.0.0.1:9/f"'
    table.write_text(
        f'[known]\nfile = "known.bin"\n{address}\nsha256 = "{DIGEST}"\nlicence = "MIT"\n'
        f'[loose]\nfile = "loose.bin"\n{address}\n'
        f'[other]\nfile = "other.bin"\n{address}\ninstead_of = "known"\n'
    )
    monkeypatch.setenv("MESM_WEIGHTS", str(table))
    return tmp_path


def test_every_backbone_with_weights_is_in_the_table() -> None:
    entries = weights.table()
    for name, backbone in BACKBONES.items():
        assert (name in entries) == backbone.weights
    assert entries["clip-b32"].sha256 == "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    assert entries["clip-b32"].sha256 in str(entries["clip-b32"].url)
    hub = entries["clip-b32-huggingface"]
    assert (hub.instead_of, hub.huggingface) == ("clip-b32", "openai/clip-vit-base-patch32")
    assert f"{hub.revision}/pytorch_model.bin" in hub.source
    assert entries["slowfast-r50"].sha256 is None


def test_the_table_is_read_without_heavy_imports() -> None:
    code = (
        "import sys, mesm_core.backbones.weights, mesm_core.backbones.fetching as f\n"
        "sys.exit(bool({'torch', 'h5py', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\nfile = "f"\nurl = "http://x/f"\nsha = "1"', "unknown key 'sha'. Did you mean 'sha256'"),
        ('[a]\nfile = "../f"\nurl = "http://x/f"', "invalid value: file = '../f'"),
        ('[a]\nfile = "f"\nurl = "file:///etc/passwd"', "url = 'file:///etc/passwd'"),
        ('[a]\nfile = "f"\nurl = "http://x/f"\nsha256 = "abc"', "sha256 = 'abc'"),
        ('[a]\nfile = "f"\nurl = "http://x/f"\nsize = "9"', "size = '9', which is of the wrong type"),
        ('[a]\nfile = "f"', "need either a url, or huggingface and path"),
        ('[a]\nfile = "f"\nhuggingface = "a/b"\npath = "../x"', "path = '../x'"),
        ('["../a"]\nfile = "f"\nurl = "http://x/f"', "name = '../a'"),
        ('[a]\nurl = "http://x/f"', "has no 'file'"),
        ("a = 1", "is not a table"),
        ("a = ", "not readable TOML"),
    ],
)
def test_invalid_tables_are_refused(own: Path, text: str, message: str) -> None:
    (own / "table.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        weights.table()
    assert message in raised.value.message


def test_a_user_table_overrides_the_packaged_one(own: Path) -> None:
    (own / "table.toml").write_text('[clip-b32]\nfile = "mine.pt"\nurl = "https://mirror/mine.pt"')
    entries = weights.table()
    assert entries["clip-b32"].source == "https://mirror/mine.pt"
    assert "slowfast-r50" in entries


def test_weights_are_searched_in_order(own: Path) -> None:
    root, cache = own / "data", own / "cache" / "weights"
    assert weights.find_weights("known", root=root) is None
    for folder, name in (
        (cache, "other.bin"),
        (cache, "known.bin"),
        (root, "known.bin"),
        (root / "weights", "known.bin"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CONTENT)
        assert weights.find_weights("known", root=root) == folder / name
        assert weights.require_weights("known", root=root) == folder / name
    assert weights.find_weights("known") == cache / "known.bin"
    assert weights.find_weights("other") == cache / "other.bin"
    with pytest.raises(FeatureError) as raised:
        weights.require_weights("loose")
    message = str(raised.value)
    assert "mesm weights pull loose" in message
    assert "http://127.0.0.1:9/f" in message
    assert str(cache / "loose.bin") in message
    with pytest.raises(FeatureError, match="Did you mean 'known'"):
        weights.find_weights("knwon")
    assert weights.find_weights("known", root=Path("x" * 300)) == cache / "known.bin"


def test_a_local_file_is_copied_and_verified(own: Path) -> None:
    right, wrong = own / "mine.bin", own / "wrong.bin"
    right.write_bytes(CONTENT)
    wrong.write_bytes(CONTENT[:-1])
    entry, target = weights.known_weights("known"), own / "cache" / "weights" / "known.bin"
    with pytest.raises(FeatureError, match="its SHA-256 is"):
        weights.take_file(entry, wrong)
    assert not target.parent.exists() or not list(target.parent.iterdir())
    with pytest.raises(FeatureError, match="No weights file at"):
        weights.take_file(entry, own / "none.bin")
    assert weights.take_file(entry, right) == target
    assert (target.read_bytes(), right.read_bytes()) == (CONTENT, CONTENT)
    assert weights.take_file(entry, target) == target
    with pytest.raises(OutputError, match="already exists"):
        weights.take_file(entry, right)
    with pytest.raises(FeatureError, match="its SHA-256 is"):
        weights.take_file(entry, wrong, overwrite=True)
    assert target.read_bytes() == CONTENT


def test_states_of_weights_files(own: Path) -> None:
    (own / "mine.bin").write_bytes(CONTENT)
    known, loose = weights.known_weights("known"), weights.known_weights("loose")
    first, second = (weights.take_file(entry, own / "mine.bin") for entry in (known, loose))
    assert (weights.state_of(known, first), weights.state_of(loose, second)) == ("verified", "unverified")
    for path in (first, second):  # damage shows, also where only the check sum of the first day is known
        path.write_bytes(b"x" + CONTENT[1:])
    assert (weights.state_of(known, first), weights.state_of(loose, second)) == ("wrong", "wrong")
    first.unlink()
    assert weights.state_of(known, first) == "missing"
    noted = second.with_name("loose.bin.sha256")
    assert noted.read_text() == f"{DIGEST}  loose.bin\n"
    noted.unlink()
    assert weights.state_of(loose, second) == "unverified"


def test_the_weights_commands(own: Path, mesm) -> None:
    listed = {row["name"]: row for row in json.loads(mesm("weights", "list", "--json").out)}
    assert (listed["known"]["verified"], listed["loose"]["verified"]) == (True, False)
    assert listed["clip-b32"]["licence"] == "MIT"
    assert "unverified" in mesm("weights", "list").out
    failed = mesm("weights", "where", "known")
    assert (failed.code, failed.out) == (2, "")
    assert "known.bin" in failed.err
    assert "--from FILE" in failed.err
    assert mesm("weights", "verify").code == 0
    assert mesm("weights", "verify", "known").code == 2
    failed = mesm("weights", "pull", "clip-32")
    assert failed.code == 2
    assert "Did you mean 'clip-b32'" in failed.err
    (own / "mine.bin").write_bytes(CONTENT)
    done = mesm("weights", "pull", "loose", "--from", own / "mine.bin")
    assert done.code == 0
    assert "was not verified" in done.err
    assert mesm("weights", "pull", "known", "--from", own / "mine.bin", "--json").code == 0
    path = own / "cache" / "weights" / "known.bin"
    assert mesm("weights", "where", "known").out == f"{path}\n"
    checked = json.loads(mesm("weights", "verify", "--json").out)
    assert [(row["name"], row["state"]) for row in checked] == [("known", "verified"), ("loose", "unverified")]
    path.write_bytes(b"x")
    failed = mesm("weights", "verify")
    assert failed.code == 2
    assert "damaged" in failed.out
