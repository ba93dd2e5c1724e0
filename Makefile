# Two commands are all that a newcomer needs: `make run` and `make test`. Each makes .venv first.
# PYTHON=/path/to/python chooses the interpreter; otherwise tools/find_python.sh finds one that works.
.DEFAULT_GOAL := help
PY := .venv/bin/python
STAMP := .venv/.kit-stamp
OLDEST := .venv-oldest
BESIDE := -n auto --dist loadfile

.PHONY: help run challenges test check test-oldest test-kaggle test-jax test-torch jax lint format types slow notebooks install clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

run: $(STAMP) ## execute the notebooks in order on embedded data, print the six metrics
	$(PY) notebooks/run.py

challenges: $(STAMP) ## execute the notebooks of the four challenges, on stand-ins where data are not here
	$(PY) notebooks/run.py 10 11 12 13

test: $(STAMP) ## the fast tests
	$(PY) -m pytest $(BESIDE) -m "not slow and not real_data"

check: lint types slow ## lint, types, and the slow tests (KIT_REAL_DATA=folder adds real data)

slow: $(STAMP)
	$(PY) -m pytest $(BESIDE) -m "slow or real_data"

test-oldest: $(OLDEST)/.kit-stamp ## the fast tests on Python 3.12 with the lower bounds
	$(OLDEST)/bin/python -m pytest -m "not slow and not real_data"

test-kaggle: $(OLDEST)/.kit-stamp ## a Kaggle bundle's notebook on the image's versions, below a /kaggle-like root
	$(OLDEST)/bin/python tools/on_kaggle.py
	$(OLDEST)/bin/python tools/on_kaggle.py --train

jax: .venv/.kit-jax ## put JAX into .venv: the tests of the backends then run on it too

test-jax: jax ## the tests of the backends, on TensorFlow and JAX
	$(PY) -m pytest tests/test_backends.py tests/test_augment.py

test-torch: .venv-torch/.kit-stamp ## the same on TensorFlow and PyTorch, in an environment of 3 GB
	.venv-torch/bin/python -m pytest tests/test_backends.py

lint: $(STAMP) ## ruff and codespell
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m codespell_lib

format: $(STAMP) ## let ruff rewrite what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(STAMP) ## mypy --strict on kit/
	$(PY) -m mypy

notebooks: $(STAMP) ## rebuild notebooks/*.ipynb from the .py files
	$(PY) notebooks/build.py

install: $(STAMP) ## make .venv and stop

clean: ## remove what the targets above made
	rm -rf .venv .venv-oldest .venv-torch build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml tools/make_venv.sh tools/find_python.sh
	tools/make_venv.sh .venv
	@touch $@

.venv/.kit-jax: $(STAMP)
	KIT_EXTRAS=dev,jax tools/make_venv.sh .venv
	@touch $@

.venv-torch/.kit-stamp: pyproject.toml tools/make_venv.sh
	KIT_EXTRAS=dev,torch tools/make_venv.sh .venv-torch
	@touch $@

build/lowest.txt: pyproject.toml tools/lowest.py $(STAMP)
	$(PY) tools/lowest.py pyproject.toml $@

$(OLDEST)/.kit-stamp: build/lowest.txt tools/make_venv.sh tools/find_python.sh
	tools/make_venv.sh $(OLDEST) build/lowest.txt 3.12
	@touch $@
