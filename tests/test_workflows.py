"""Workflows run targets of the Makefile, and CI runs the same ones; the oldest versions are those of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
RUN = r"^ *(?:- )?run: *(.*)$"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def prerequisites(target: str) -> list[str]:
    """Return the prerequisites of a target; fail if the Makefile has none of this name."""
    found = re.search(rf"^{re.escape(target)}:(.*)$", MAKEFILE, re.MULTILINE)
    assert found is not None, f"the Makefile has no target {target}"
    return found[1].split()


def test_every_run_line_is_a_make_target_that_ci_runs() -> None:
    lines = [
        line for path in WORKFLOWS for line in re.findall(r"^ *(?:- )?run: *(.*)$", path.read_text(), re.MULTILINE)
    ]
    assert all(re.fullmatch(r"make [a-z]+", line) for line in lines)
    targets = {line.removeprefix("make ") for line in lines}
    assert targets == set(prerequisites("check"))
    assert "check" in prerequisites("test")
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")
    for target in targets:
        prerequisites(target)


def test_unit_runs_every_test_once_and_demands_coverage() -> None:
    found = re.search(r"^COVERED := (.*)$", MAKEFILE, re.MULTILINE)
    assert found is not None
    folders = found[1].split()
    assert all(list((ROOT / "tests" / folder).glob("test_*.py")) for folder in folders)
    recipe = MAKEFILE[MAKEFILE.index("\nunit:") :].split("\n\n")[0].splitlines()[2:]
    covered, rest = recipe
    assert "$(addprefix tests/,$(COVERED))" in covered
    assert "--cov=mesm_core" in covered
    assert "--cov-fail-under=$(FLOOR)" in covered
    assert rest.split() == ["$(PYTEST)", "$(addprefix", "--ignore=tests/,$(COVERED))"]


def test_the_workflow_tests_every_python_and_the_oldest_and_newest_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = {name.rsplit(" ", 1)[1] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)}
    jobs = re.findall(r'python: "([\d.]+)", constraints: (\S+)}', "".join(path.read_text() for path in WORKFLOWS))
    assert {python for python, _ in jobs} == pythons
    names = {name for _, name in jobs}
    assert names == {"constraints.txt", "constraints-oldest.txt", "constraints-newest.txt"}
    assert all((ROOT / name).is_file() for name in names)


def test_the_oldest_versions_are_the_bounds_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    bounds = dict(
        entry.split(">=")
        for entry in [
            *project["dependencies"],
            *(entry for extra in ("plot", "hub", "milvus", "ray", "web") for entry in optional[extra]),
        ]
    )
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    assert dict(line.split("==") for line in lines if line and not line.startswith("#")) == bounds


def test_the_container_runs_without_root_and_without_build_tools() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    assert any(line.startswith("USER ") and line != "USER root" for line in last)
    assert not any(word in line for line in last for word in ("apt-get", "gcc", "build-essential", "pip install"))


def test_the_conda_environment_asks_for_a_python_that_is_supported() -> None:
    text = (ROOT / "environment.yml").read_text()
    assert re.search(r"python=3\.1[123]\b", text)
