# make demo: install into .venv and run the whole pipeline on generated data.
# make test: the same, then everything below `check`.
# CONSTRAINTS: the versions to install; constraints-oldest.txt and constraints-newest.txt are the others.
# The workflows in .github/workflows run these targets and nothing else.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
WHEEL := build/wheel
PYTEST := $(BIN)/pytest -n 2 --dist worksteal
COVERED := backbones build config data extraction fast inference losses metrics model official pages search text training video web
# The share of mesm_core's lines and branches that they run without ../shared, in percent, rounded down.
FLOOR := 81

.PHONY: demo test check lint types browser unit docs wheel slow coverage install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev,docs]'
	touch $@

demo: install
	$(BIN)/mesm demo --overwrite

test: demo check

check: lint types unit docs wheel

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

# The tests of the page need a browser. Root installs Debian's where there is none; for others these tests are skipped.
browser:
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null || [ "$$(id -u)" != 0 ] \
		|| { apt-get update && apt-get install --yes --no-install-recommends chromium; } \
		|| echo "Chromium could not be installed, so that the tests of the page are skipped."

# Each test runs once. The tests of mesm_core's packages count the lines and branches that they run; the others run whole
# commands, often in processes of their own, where counting costs much and adds little.
unit: install browser
	$(PYTEST) $(addprefix tests/,$(COVERED)) --cov=mesm_core --cov-report= --cov-fail-under=$(FLOOR)
	$(PYTEST) $(addprefix --ignore=tests/,$(COVERED))

# The documentation site, docs/_build/index.html. Warnings are errors.
docs: install
	$(BIN)/sphinx-build -b html -W --keep-going --quiet docs docs/_build

# Builds a wheel, installs it into an empty environment, and tries it from another folder.
wheel:
	rm -rf $(WHEEL)
	mkdir -p $(WHEEL)/elsewhere
	$(PYTHON) -m venv $(WHEEL)/env
	$(WHEEL)/env/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(WHEEL) .
	$(WHEEL)/env/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) $(WHEEL)/mesm-*.whl
	cd $(WHEEL)/elsewhere && env -u PYTHONPATH ../env/bin/mesm --version
	cd $(WHEEL)/elsewhere && env -u PYTHONPATH ../env/bin/mesm config show --dataset tacos > /dev/null
	cd $(WHEEL)/elsewhere && env -u PYTHONPATH ../env/bin/mesm doctor --data-dir . > /dev/null
	rm -rf $(WHEEL)

slow: install
	$(BIN)/pytest -m slow

# The lines that all default tests run, file by file.
coverage: install
	$(PYTEST) --cov --cov-report=term

clean:
	rm -rf $(VENV) build mesm-demo docs/_made docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
