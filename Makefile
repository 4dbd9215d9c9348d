# Two commands are the contract: `make demo` and `make test`. Each sets up everything it needs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LOCK := pyproject.toml constraints.txt

.PHONY: demo test setup check test-slow test-integration chaos bench format clean

demo: setup          ## segment the demo clips with the built-in model and show where the results are
	$(BIN)/avs demo

test: setup          ## the fast tests, a process a core: a few minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist loadfile

test-slow: setup     ## large models, every codec against ffmpeg, the real source packages
	$(BIN)/pytest -m slow

test-integration: setup  ## a real S3 server, a real Ray, a real MLflow server
	$(BIN)/pytest -m integration

chaos: setup         ## store, disk, network and processes fail under whole jobs; archives compared byte for byte; a table at the end
	$(BIN)/pytest -m chaos

check: setup         ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup         ## every speed and memory figure of the documents
	$(BIN)/python -m benchmarks

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamp holds the hash of what was installed: an environment made from other pins is made anew.
setup:
	@hash="$$(cat $(LOCK) | sha256sum | cut -d' ' -f1) $$($(PYTHON) -c 'import sys; print(sys.version_info[:2])') $(CURDIR)"; \
	if [ "$$(cat $(STAMP) 2>/dev/null)" != "$$hash" ]; then \
	  $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 13) else "Python 3.11 or 3.12 is needed, this is %d.%d: make PYTHON=python3.11 …" % v)' && \
	  rm -rf .venv && $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,composer]' && \
	  printf '%s' "$$hash" > $(STAMP); \
	fi

clean:
	rm -rf .venv runs out
