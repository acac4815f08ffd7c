# Two commands from a fresh clone: `make demo` and `make test`. Both set up .venv; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin

# A checkout that was moved is set up anew: what is installed points to where it was.
ifneq ($(shell cat .venv/.installed 2>/dev/null),$(CURDIR))
$(shell rm -f .venv/.installed)
endif

# Bytecode is written at the first import, also where the environment says otherwise: each process would compile anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test drills check bench up down clean

demo: .venv/.installed
	$(BIN)/labelmill demo

# Two processes: many tests wait for processes of their own, most of the rest runs on one core.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/.installed
	$(PYTEST) -m "not drill"

# Databases, workers, clusters and buckets that are started for real and broken on purpose.
drills: .venv/.installed
	$(PYTEST) -m drill

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict deploy/*.py
	$(BIN)/lint-imports
	$(PYTEST)

# In this order: what is compared with scripts, peers and bounds, then what the labels are worth.
BENCHES := relabel_speed pseudolabel_speed peers pooling_speed sql_speed run_costs kills cuda_speed forward_speed fast_labels label_quality \
	lsun_speed ingest_speed coco_speed augment_speed anchors_speed selection_speed train_speed learning

bench: .venv/.installed
	@for bench in $(BENCHES); do echo "\n## $$bench"; $(BIN)/python tests/bench/$$bench.py || exit 1; done

# A Prefect server, the deployments and a worker on this machine, in the background; logs in .labelmill/logs.
up: .venv/.installed
	$(BIN)/python deploy/local.py up $(if $(PORT),--port $(PORT))

down: .venv/.installed
	$(BIN)/python deploy/local.py down

clean:
	rm -rf .venv demo build dist src/labelmill.egg-info

# Its two options make 2.5 minutes of 6.7: newer pips resolve faster, and most of 23,000 files are never imported.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("labelmill needs Python 3.11 or later: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@test -L src/labelmill/flows || { echo "src/labelmill/flows is no link: clone with 'git -c core.symlinks=true clone'"; exit 1; }
	$(PYTHON) -m venv --upgrade-deps .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[demo,dev]'
	@echo '$(CURDIR)' > $@
