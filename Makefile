# Two commands matter: `make demo` and `make test`. Everything lives in .venv and leaves when it is deleted.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-cluster check bench lock format clean
setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" sh scripts/setup.sh

demo: setup
	@$(BIN)/python -m scripts.demo

# Several files at a time, where each can have a network of its own: on Linux as root (tests/own_network.py).
test: setup
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# A real Kubernetes on this machine: Linux, root, Go, and the Debian packages that it asks for (CONTRIBUTING.md).
test-cluster: setup
	@$(BIN)/python -m tests.cluster.harness.build
	@$(BIN)/python -m pytest tests/cluster

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m scripts.reference --check

bench: setup
	@$(BIN)/python -m benchmarks

format: setup
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: setup
	@sh scripts/lock.sh

clean:
	rm -rf .venv
