# Needs only make and Python 3.11 or newer: every target sets up what it uses, once.
#
#   make test PYTHON=python3.13 VENV=.venv313 CONSTRAINTS=
#
# tests on another Python, in an environment of its own, with the newest packages
# that pyproject.toml allows instead of the pinned ones.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
WORKERS ?= 2
ARGS ?=
JAX ?=

# Older pips apply the first to build requirements too; pip 25.3 and newer need both.
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT := $(CONSTRAINTS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Pyright and Node come as wheels; without this pyright looks online for a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

BIN := $(VENV)/bin
KERNEL := $(wildcard jax_ctc/_recursion/cpu/kernel/*.h jax_ctc/_recursion/cpu/kernel/*.cc)

.DEFAULT_GOAL := help
.PHONY: help demo test exhaustive compat docs bench wheel aot ptx check format lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1@/p' $(firstword $(MAKEFILE_LIST)) \
	  | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'

demo: $(VENV)/.examples ## train a line reader on the spot; ARGS="--help" for options
	$(BIN)/python -m examples.handwriting $(ARGS)

test: $(VENV)/.test ## run the tests in ten minutes; ARGS="-k name" to choose some
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

exhaustive: $(VENV)/.test ## run every test, with those that show more of what others show
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "" $(ARGS)

compat: $(VENV)/.compat ## run the tests beside PyTorch, Keras and TensorFlow: 2 GB of wheels
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest tests/compat $(ARGS)

docs: $(VENV)/.docs ## build the site into out/site; ARGS="-b linkcheck" asks the network
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -E -b dirhtml -d out/doctrees \
	  $(ARGS) docs out/site

bench: $(VENV)/.bench ## time every contender, cases and sweeps; ARGS="--help" for options
	$(BIN)/python -m benchmarks.run --sweep T U V B $(ARGS)
	$(BIN)/python -m benchmarks.linear
	$(BIN)/python -m benchmarks.decoding

# Each wheel in an environment of its own, with the newest of everything (or with JAX),
# and tests in a folder without the package: what runs is what was installed. What pip
# builds against the oldest jaxlib must run there; the last test is of what this one makes.
wheel: $(VENV)/.test $(VENV)/.release ## make what is released, and test it installed; JAX="jax==0.10.0 jaxlib==0.10.0" on that
	rm -rf dist $(VENV)-apart
	$(BIN)/python -m build --outdir dist/kernel
	CXX=none $(BIN)/python -m build --wheel --outdir dist/pure
	$(BIN)/python -m twine check --strict dist/*/*
	$(BIN)/check-wheel-contents dist/*/*.whl
	mkdir $(VENV)-apart
	cp -r tests docs examples benchmarks tools *.md *.toml *.cff *.py $(VENV)-apart
	for kind in pure kernel; do \
	  $(PYTHON) -m venv --clear $(VENV)-newest && \
	  PIP_CONSTRAINT= $(VENV)-newest/bin/pip install --quiet \
	    "$$(ls dist/$$kind/*.whl)[test]" $(JAX) && \
	  (cd $(VENV)-apart && JAX_PLATFORMS=cpu $(abspath $(VENV))-newest/bin/python \
	    -m pytest -q -m fast $(ARGS)) || exit 1; \
	done
	cd $(VENV)-newest && JAX_PLATFORMS=cpu bin/python -c "import numpy as np, jax_ctc; \
	  jax_ctc.ctc_loss(np.zeros((1, 1, 2)), np.ones((1, 1), int), implementation='cpu')"
	OTHER_PYTHON=$(abspath $(VENV))-newest/bin/python \
	  $(BIN)/python -m pytest -m "" tests/recursion/cpu/test_build.py $(ARGS)

aot: $(VENV)/.aot ## compile for TPUs and GPUs that are not here; too big for every check
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -n 1 -m "" tests/test_aot.py tests/recursion/cuda/test_aot.py tests/recursion/tpu/test_aot.py $(ARGS)
	JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.kernels
	JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.tpu
	JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.linear --classes 131072 --impl plain \
	  linear --target "v5e x 1" "H100 x 1" --out out/linear_aot.jsonl
	JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.decoding --target "v5e x 1" "H100 x 1" \
	  --out out/decoding_aot.jsonl

ptx: $(VENV)/.ptx ## make the texts of the CUDA kernels anew, after a change of their source
	$(BIN)/python -m tools.ptx

check: $(VENV)/.dev ## what has to pass: format, lint, types, tests, the slow ones too
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(MAKE) test ARGS='-m "not exhaustive" $(ARGS)'

format: $(VENV)/.dev ## rewrite the files as `make check` wants them
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

# Pinned on the oldest supported Python, because newer Pythons can install those
# versions too, but not the other way round.
lock: PIP_CONSTRAINT :=
lock: PIP_BUILD_CONSTRAINT :=
lock: ## pin the newest versions: make lock PYTHON=python3.11
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install hatchling editables -e '.[aot,bench,compat,dev,docs,release]'
	{ echo '# Every package of every extra. Regenerate: make lock PYTHON=python3.11'; \
	  $(VENV)-lock/bin/pip freeze --exclude-editable; } > constraints.txt
	rm -rf $(VENV)-lock

clean: ## remove the environment, caches and outputs
	rm -rf $(VENV) $(VENV)-newest $(VENV)-apart .jax_cache .hypothesis .pytest_cache .ruff_cache build dist out
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
	  2>/dev/null || { echo "$(PYTHON) is missing, older than 3.11 or lacks venv:" \
	  "name another with 'make PYTHON=python3.12 ...'." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per extra: make installs again only when what it was made from changes.
$(VENV)/.%: pyproject.toml build_kernel.py $(KERNEL) $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
