# `make example` runs the main example, `make test` the tests; both make their own environment in .venv.
PYTHON ?= python3
WORKERS ?= 2
RANKS ?= 2
OUT ?= brusselator.png
RESULTS ?= benchmarks/results
PORT ?= 8000
# The version that torchjac is tested on, and the one taken where there is none yet.
TORCH ?= 2.13.0
CPU := --extra-index-url https://download.pytorch.org/whl/cpu

BIN := .venv/bin
READY := .venv/.ready
DOCS := .venv/.docs

.PHONY: help example example-distributed example-store test gpu bench check docs docs-serve clean

help:
	@echo "make example   the Brusselator and a batched MLP, with a spy plot in $(OUT)"
	@echo "make example-distributed   an implicit step of the Brusselator on RANKS=$(RANKS) processes"
	@echo "make example-store   a Jacobian larger than memory, written to disk by a process that is killed on the way"
	@echo "make test      all tests and the examples in the docstrings"
	@echo "make bench     torchjac beside its peers on every workload: a table, a plot and a JSON in $(RESULTS)"
	@echo "make check     ruff and mypy"
	@echo "make gpu       values, times, peak memory and synchronisations on this machine's GPU"
	@echo "make docs      the documentation, in site/index.html"
	@echo "make docs-serve   the same at http://localhost:$(PORT), where its search works too"
	@echo "make clean     remove the environment"

# The stamp makes a second run free; a change of pyproject.toml or of this file renews the environment.
$(READY): pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# On x86-64 Linux without an NVIDIA GPU: the small CPU build where it can be had, else PyPI's.
	if [ "$$(uname -sm)" = "Linux x86_64" ] && ! command -v nvidia-smi >/dev/null 2>&1 \
	    && ! $(BIN)/python -c "import torch" >/dev/null 2>&1; then \
	    $(BIN)/python -m pip install --quiet --retries 1 "torch==$(TORCH)+cpu" $(CPU) 2>/dev/null \
	        || $(BIN)/python -m pip install "torch==$(TORCH)"; \
	fi
	$(BIN)/python -m pip install --quiet -e ".[dev,plot,sparse]"
	touch $@

example: $(READY)
	$(BIN)/python examples/brusselator.py --out $(OUT)

example-store: $(READY)
	$(BIN)/python examples/larger_than_memory.py

example-distributed: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m torch.distributed.run --standalone --nproc-per-node $(RANKS) \
	    examples/pde_over_ranks.py $(ARGS)

# One thread a worker: two workers with two threads each would fight for two cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

# The peers are optional: where one cannot be installed, the table says that it is missing.
.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet -e ".[bench]" || echo "some peers are missing"
	touch $@

bench: .venv/.bench
	mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/run.py --json $(RESULTS)/benchmark.json --plot $(RESULTS)/benchmark.png \
	    --text $(RESULTS)/benchmark.txt $(ARGS)

# At most ten minutes; where there is no GPU both say so and are done.
gpu: $(READY)
	$(BIN)/python -m pytest -q -rs tests/gpu $(ARGS)
	$(BIN)/python benchmarks/gpu.py --seconds 420

check: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# Its tools are installed only when it is built: the other commands do without them.
$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	touch $@

docs: $(DOCS)
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/ops.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the documentation is in site/index.html"

docs-serve: docs
	$(BIN)/python -m http.server --directory site --bind localhost $(PORT)

clean:
	rm -rf .venv site docs/pictures docs/reference/ops.md
