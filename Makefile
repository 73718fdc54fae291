# make demo: install into .venv and run the whole pipeline on generated data.
# make test: the same, then check format, lint, types and tests, and build the documentation.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check slow docs install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

demo: install
	$(BIN)/mesm demo --overwrite

test: demo check

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal
	$(MAKE) docs

# The documentation site, docs/_build/index.html. Warnings are errors.
docs: install
	$(BIN)/sphinx-build -b html -W --keep-going --quiet docs docs/_build

slow: install
	$(BIN)/pytest -m slow

clean:
	rm -rf $(VENV) mesm-demo docs/_made docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
