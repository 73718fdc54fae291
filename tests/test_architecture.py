"""The design's rules that a machine can check: imports point one way, files and functions stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("mesm_core/**/*.py"), *ROOT.glob("mesm_cli/**/*.py")])

# A module may import from its own layer and from those below it.
LAYERS = [
    {"mesm_core.errors"},
    {"mesm_core.places", "mesm_core.unfailing"},
    {
        "mesm_core.types",
        "mesm_core.caches",
        "mesm_core.config",
        "mesm_core.files",
        "mesm_core.handover",
        "mesm_core.inputs",
        "mesm_core.unpickling",
        "mesm_core.video",
    },
    {
        "mesm_core.data",
        "mesm_core.text",
        "mesm_core.model",
        "mesm_core.losses",
        "mesm_core.metrics",
        "mesm_core.backbones",
    },
    {"mesm_core.fast"},
    {"mesm_core.build", "mesm_core.inference.decode", "mesm_core.extraction"},
    {"mesm_core.training", "mesm_core.inference", "mesm_core.official", "mesm_core.pages"},
    {"mesm_core.bench"},
    {"mesm_cli"},
]


def layer_of(module: str) -> int | None:
    """Return the layer of the longest prefix of the module that has one."""
    best = max(
        (
            (len(name), rank)
            for rank, names in enumerate(LAYERS)
            for name in names
            if f"{module}.".startswith(f"{name}.")
        ),
        default=None,
    )
    return None if best is None else best[1]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> list[str]:
    """Return the mesm modules that a file imports, wherever in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.startswith(("mesm_core", "mesm_cli"))]


@pytest.mark.parametrize("path", [p for p in SOURCES if layer_of(module_name(p)) is not None], ids=module_name)
def test_imports_point_down(path: Path) -> None:
    own = layer_of(module_name(path))
    assert own is not None
    upward = [name for name in imported(path) if (rank := layer_of(name)) is not None and rank > own]
    assert not upward


@pytest.mark.parametrize("path", sorted(ROOT.glob("mesm_core/**/*.py")), ids=module_name)
def test_core_neither_prints_nor_exits(path: Path) -> None:
    tree = ast.parse(path.read_text())
    calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    modules = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not calls & {"print", "exit", "quit", "input"}
    assert not modules & {"typer", "rich", "click"}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 80, f"{node.name} is too long"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_public_things_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert path.read_text() == "" or ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize(
    "module",
    [
        "mesm_cli.app",
        "mesm_core",
        "mesm_core.config.load",
        "mesm_core.data.counting",
        "mesm_core.video.rows",
        "mesm_core.video.probe",
        "mesm_core.video.cut",
        "mesm_core.inference.locate",
        "mesm_core.inference.clips",
        "mesm_core.inference.exchange",
        "mesm_core.inference.questions",
        "mesm_core.extraction.estimate",
        "mesm_core.extraction.kept",
        "mesm_core.pages.located",
    ],
)
def test_imports_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_safe_loading() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert "weights_only=False" not in text
        assert "allow_pickle=True" not in text
        assert "pickle.load" not in text
