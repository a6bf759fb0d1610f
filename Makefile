# `make demo` and `make test` set up everything they need in .venv; a second call reuses it.
PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/ready
RUN    := $(VENV)/bin/python

.PHONY: demo demo-quick test lint format clean

$(READY): requirements.txt
	rm -rf $(VENV)
	@echo 'setting up .venv: about 6 GB of packages, a few minutes'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

demo: $(READY)
	$(RUN) -m demo

demo-quick: $(READY)
	$(RUN) -m demo --quick

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(READY)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) output
