# Two commands from a fresh clone: `make demo` and `make test`. Both set up .venv; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench clean

demo: .venv/.installed
	$(BIN)/labelmill demo

test: .venv/.installed
	$(BIN)/pytest

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

bench: .venv/.installed
	$(BIN)/python tests/bench/label_quality.py
	$(BIN)/python tests/bench/relabel_speed.py
	$(BIN)/python tests/bench/forward_speed.py

clean:
	rm -rf .venv demo build dist src/labelmill.egg-info

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("labelmill needs Python 3.11 or later: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@test -L src/labelmill/flows || { echo "src/labelmill/flows is no link: clone with 'git -c core.symlinks=true clone'"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	@touch $@
