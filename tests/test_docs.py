"""The documentation names what exists: pages, sections, modules, functions, commands, options, settings."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mesm_core
from mesm_core.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    path for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md") if path.is_file()
] + DOCS
SOURCES = sorted([*ROOT.glob("mesm_core/**/*.py"), *ROOT.glob("mesm_cli/**/*.py")])
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```(\S*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CITATION = re.compile(r'\b([\w/-]+\.md)(?:,\s+"([^"]+)")?')
DOTTED = re.compile(r"`(mesm_(?:core|cli)(?:\.\w+)+)`")
FILE = re.compile(r"`((?:docs(?!/_)|tests|benchmarks|configs|mesm_core|mesm_cli)/[\w./-]+)`")
TO_WRITE = re.compile(r"^The file, `[^`]+`:$", re.MULTILINE)  # of walk-throughs: the reader writes it
OPTION = re.compile(r"--[a-z][a-z0-9-]*")


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The script that writes pages from the code."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("_make")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def headings(path: Path) -> list[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [line.lstrip("#").strip() for line in text.splitlines() if re.match(r"#+ ", line)]


def anchor(heading: str) -> str:
    """The anchor that GitHub and MyST give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, section = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        assert page.exists(), target
        assert not section or section in map(anchor, headings(page)), target


@pytest.mark.parametrize("path", DOCS, ids=page_name)
def test_links_stay_in_the_site(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        assert not target.startswith(("..", "_made")), target  # pages that are made are not there before a build


def test_every_page_is_in_the_contents(make: ModuleType) -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {
        line
        for kind, block in CODE.findall(index)
        if kind == "{toctree}"
        for line in block.splitlines()
        if line and not line.startswith(":")
    }
    written = {path.stem for path in DOCS} - {"index"}
    assert {name for name in listed if not name.startswith("_made/")} == written
    made = {f"_made/{name.removesuffix('.md')}" for name, _ in make.pages()}
    assert {name for name in listed if name.startswith("_made/")} <= made


@pytest.mark.parametrize("path", SOURCES, ids=page_name)
def test_pages_that_docstrings_cite_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        for page, section in CITATION.findall(ast.get_docstring(node) or ""):
            assert (ROOT / page).is_file(), page
            assert not section or " ".join(section.split()) in headings(ROOT / page), section


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_names_in_pages_exist(path: Path) -> None:
    text = TO_WRITE.sub("", path.read_text(encoding="utf-8"))
    for name in DOTTED.findall(text):
        resolve(name)
    for file in FILE.findall(text):
        assert (ROOT / file).exists(), file


def resolve(name: str) -> Any:
    """Return what a dotted name stands for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def command_lines(path: Path) -> Iterator[str]:
    for kind, block in CODE.findall(path.read_text(encoding="utf-8")):
        if kind == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                yield from (part.strip() for part in re.split(r" \| |&&", line) if part.strip().startswith("mesm "))


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_commands_in_pages_exist(make: ModuleType, path: Path) -> None:
    from typer.main import get_command

    from mesm_cli.app import app

    commands = dict(make.leaves(get_command(app), ()))
    for line in command_lines(path):
        words = shlex.split(line, comments=True)[1:]
        if words[0].startswith("--"):
            continue
        name = tuple(words[:2]) if tuple(words[:2]) in commands else tuple(words[:1])
        assert name in commands, line
        known = {spelling for param in commands[name].params for spelling in (*param.opts, *param.secondary_opts)}
        given = {word.partition("=")[0] for word in words if OPTION.match(word)}
        assert given <= known | {"--help"}, line


def test_made_pages_say_all(make: ModuleType) -> None:
    from typer.main import get_command

    from mesm_cli.app import app

    made = dict(make.pages())
    commands = dict(make.leaves(get_command(app), ()))
    assert len(commands) > 30
    for words, command in commands.items():
        page = made[f"commands/{'-'.join(words)}.md"]
        shown = [param for param in command.params if not getattr(param, "hidden", False)]
        options = [name for param in shown for name in param.opts if name.startswith("--")]
        assert all(f"`{name}`" in page for name in options if name != "--help"), words
    for section, field in Config.model_fields.items():
        schema = field.annotation
        assert schema is not None
        for name in schema.model_fields:
            assert f"`{section}.{name}`" in made["settings.md"]
    for name in set(mesm_core.__all__) - {"__version__"}:
        assert f"## {name}\n" in made["api.md"]
    for path in SOURCES:
        assert f"`{make.module_name(path)}`" in made["modules.md"]


def test_made_pages_are_replaced_and_old_ones_go(make: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "commands").mkdir()
    (tmp_path / "commands" / "gone.md").write_text("a command that there was")
    make.main(tmp_path)
    assert not (tmp_path / "commands" / "gone.md").exists()
    page = tmp_path / "commands" / "predict.md"
    page.write_text("old")
    make.main(tmp_path)
    assert page.read_text(encoding="utf-8").startswith("# mesm predict\n")


def test_text_is_escaped(make: ModuleType) -> None:
    assert make.text("--set a_b of `c_d` <x>") == r"`--set` a\_b of `c_d` \<x\>"
    assert make.table(("a",), [("x|y",)]).splitlines()[-1] == r"| x\|y |"
