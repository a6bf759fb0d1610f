# `make demo` and `make test` set up everything they need in .venv; a second call reuses it.
#
#   make demo TORCH_INDEX=URL    torch and torchvision from this package index, as PyTorch has one for its CPU builds
#   make demo UV=                by pip, even where uv is on the PATH
#
# A .venv that is there stays as it is until requirements.txt changes; delete it to take torch from elsewhere.
PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/ready
RUN    := $(VENV)/bin/python
UV     := $(shell command -v uv 2>/dev/null)

ifeq ($(UV),)
CREATE  := $(PYTHON) -m venv $(VENV) && $(RUN) -m pip install --quiet --upgrade pip
INSTALL := $(RUN) -m pip install --quiet
else
CREATE  := $(UV) venv --quiet --python $(PYTHON) $(VENV)
INSTALL := $(UV) pip install --quiet --python $(RUN)
endif

.PHONY: demo demo-quick notebook bootstrap app test test-faults test-app lint format clean

$(READY): requirements.txt
	rm -rf $(VENV)
ifeq ($(TORCH_INDEX),)
	@echo 'setting up .venv, a few minutes: on Linux 6.5 GB, 4 of them CUDA libraries; see TORCH_INDEX in the Makefile'
	$(CREATE)
else
	@echo 'setting up .venv, a few minutes: 2 GB with a CPU build of torch'
	$(CREATE)
	grep -E '^torch(vision)?>' requirements.txt > $(VENV)/torch.txt
	$(INSTALL) --index-url '$(TORCH_INDEX)' -r $(VENV)/torch.txt
endif
	$(INSTALL) -r requirements.txt
	touch $@

# Gradio asks for a Pillow below 13, which resizes tall pictures to other last gray levels than the recorded ones.
$(VENV)/ready-app: $(READY) requirements-app.txt
	$(INSTALL) -r requirements-app.txt
	$(INSTALL) --no-deps 'pillow>=13'
	touch $@

demo: $(READY)
	$(RUN) -m demo

demo-quick: $(READY)
	$(RUN) -m demo --quick

# Offline, on the models that come along; what the cells print is kept.
notebook: $(READY)
	BLIP_OFFLINE=1 $(VENV)/bin/jupyter execute --inplace --timeout=600 --NotebookClient.record_timing=False notebooks/tour.ipynb

bootstrap: $(READY)
	$(RUN) -m demo.bootstrap --seed 0
	$(RUN) -m demo.bootstrap --seed 1
	$(RUN) -m demo.bootstrap --table output/bootstrap/seed_0 output/bootstrap/seed_1

# The page at http://127.0.0.1:7860; `make app APP='--folder holiday --port 8000'` hands flags on.
app: $(VENV)/ready-app
	$(RUN) app.py $(APP)

test: lint
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

# Kills, full disks, hangs and the like, caused; the counts go into docs/reliability.md.
test-faults: $(READY)
	$(RUN) -m pytest tests/faults tests/hostile tests/engine -m faults --write-counts

# In the PATH's chromium; where there is none, in playwright's own, which `playwright install chromium` downloads.
test-app: $(VENV)/ready-app
	command -v chromium >/dev/null || $(RUN) -m playwright install chromium
	$(RUN) -m pytest tests/app -m 'browser or not browser'

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright --pythonpath $(RUN)

format: $(READY)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) output
