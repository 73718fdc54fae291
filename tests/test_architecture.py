"""The design's rules that a machine can check: imports point one way, files and functions stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("mesm_core/**/*.py"), *ROOT.glob("mesm_cli/**/*.py")])

# Lowest first. A module imports from its own package and from packages of lower layers, never from its own layer.
LAYERS = [
    {"errors", "version", "unfailing", "handover", "torchrun"},
    {"types", "arrays", "inputs", "places"},
    {"files", "unpickling", "config", "video", "devices", "processes", "children", "checkpoint_content"},
    {"caches", "checkpoint", "hdf5", "model", "losses", "metrics"},
    {"fast", "text", "decode"},
    {"data", "backbones", "confidence"},
    {"extraction"},
    {"build"},
    {"official"},
    {"inference"},
    {"training", "search"},
    {"pages"},
    {"bench", "web"},
    {"mesm_core"},
    {"mesm_cli"},
]
LAYER = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def package_of(module: str) -> str:
    """Return the package, or the module at the top of mesm_core, that a module or a name in one belongs to.

    ``mesm_core`` stands for its own ``__init__``, the public names.
    """
    top, *below = module.split(".")
    if top == "mesm_core" and below and ((ROOT / top / below[0]).is_dir() or (ROOT / top / f"{below[0]}.py").is_file()):
        return below[0]
    return top


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> list[str]:
    """Return the mesm modules that a file imports, wherever in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.startswith(("mesm_core", "mesm_cli"))]


def test_every_package_is_in_one_layer() -> None:
    packages = {package_of(module_name(path)) for path in SOURCES}
    assert packages == set(LAYER)
    assert sum(map(len, LAYERS)) == len(LAYER)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    own = package_of(module_name(path))
    others = {name: package_of(name) for name in imported(path)}
    assert not [name for name, package in others.items() if package != own and LAYER[package] >= LAYER[own]]


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


WITHOUT_TORCH = [
    "mesm_cli.app",
    "mesm_core",
    "mesm_core.config.load",
    "mesm_core.data.count_dataset",
    "mesm_core.video.rows",
    "mesm_core.video.probe",
    "mesm_core.video.cut",
    "mesm_core.inference.locate",
    "mesm_core.confidence.calibration",
    "mesm_core.confidence.negatives",
    "mesm_core.inference.clips",
    "mesm_core.inference.exchange",
    "mesm_core.inference.questions",
    "mesm_core.extraction.estimate",
    "mesm_core.extraction.cache_contents",
    "mesm_core.pages.located",
    "mesm_core.search.checking",
    "mesm_core.search.moving",
    "mesm_core.search.selection",
    "mesm_core.web.app",
    "mesm_core.web.child",
    "mesm_core.web.opening",
    "mesm_core.web.server",
]


def test_imports_without_torch() -> None:
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += "    assert 'torch' not in sys.modules, name"
    done = subprocess.run([sys.executable, "-c", code, *WITHOUT_TORCH], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_safe_loading() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert "weights_only=False" not in text
        assert "allow_pickle=True" not in text
        assert "pickle.load" not in text


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_only_public_names_of_torch_are_used(path: Path) -> None:
    names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    names |= {*imported_names(path)}
    names = {name for name in names if not name.startswith("torch.ops.")}  # operators: torch has no others for these
    assert not [name for name in names if name.startswith("torch.") and "._" in name.replace(".__version__", "")]


def imported_names(path: Path) -> list[str]:
    """Return the names that a file imports from modules, in full."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return [f"{node.module}.{alias.name}" for node in nodes if node.module for alias in node.names]


def test_no_test_imports_from_another_test() -> None:
    """Helpers lie in conftest or in modules of their own: they are found by name, and no test runs twice."""
    for path in ROOT.glob("tests/**/*.py"):
        assert not [name for name in imported_names(path) if re.match(r"tests\.(?:\w+\.)*test_", name)], path
