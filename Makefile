# From an empty clone to a dreamed game: `make world`. `make help` lists every target.
#
# Each target makes the virtual environment and installs what it needs by itself, and again only when pyproject.toml or
# constraints.txt has changed. Without make: python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e .

# any Python from 3.11 on:  make world PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
# where pip looks for another build of torch; on Linux, this one is small and has no CUDA:
#   make install TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# the game that `make world` records and learns, and `make play` plays
GAME ?= breakout
# the chapter whose exercises `make exercises` checks; all of them without it
CHAPTER ?=
# address of your copy of the course, to which the page of `make web` links
COURSE ?=
# how many test files run at a time, each on one thread
TEST_PROCESSES ?= 2
# passed on to pytest:  make test PYTEST_ARGS="tests/texts/test_readmes.py -x"
PYTEST_ARGS ?=

RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --disable-pip-version-check --constraint constraints.txt
OWN_WORLD := $(patsubst %/dynamics.pt,%,$(wildcard worlds/$(GAME)/dynamics.pt))
INDEX = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help install world play web exercises experiments bench pictures test faults lint clean

help:  ## show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /|/' | while IFS='|' read -r target text; do printf '  make %-11s %s\n' "$$target" "$$text"; done

install: $(VENV)/installed  ## make .venv and install everything that the course imports

world: $(VENV)/installed  ## record a game, train chapters 1 to 3 on it, evaluate, and write a report to worlds/<game>/
	$(RUN) 4.inference/build_world.py --game $(GAME)

play: $(VENV)/installed  ## play a world in the browser, beside the real game: yours where `make world` has made one, else the reference world
	$(RUN) 4.inference/play.py --world $(or $(OWN_WORLD),assets/worlds/$(GAME))

web: $(VENV)/installed  ## build a page that plays the worlds in any browser, without a server, into build/web; needs npm
	@command -v npm >/dev/null || { echo "error: there is no npm, which fetches onnxruntime-web; install Node.js" >&2; exit 2; }
	npm ci --prefix web || { echo "error: npm could not fetch onnxruntime-web; check the network and run make web again" >&2; exit 2; }
	$(INSTALL) $(INDEX) --editable ".[web]"
	$(RUN) 4.inference/lab/export_web.py $(if $(COURSE),--course $(COURSE))

exercises: $(VENV)/installed  ## check your answers to the exercises, in seconds: all, or with CHAPTER=2 those of one chapter
	@$(RUN) -c "import pytest" 2>/dev/null || $(INSTALL) "pytest>=8.0"
	@$(RUN) tests/exercises/check.py $(CHAPTER)

experiments: $(VENV)/installed data/breakout  ## every table: chapters 1 to 3 without each of their parts, tokenizers and dynamics models side by side, papers' claims, long contexts; hours
	$(INSTALL) $(INDEX) --editable ".[lab]"
	$(RUN) 1.video-tokenizer/lab/compare.py
	$(RUN) 1.video-tokenizer/lab/compare.py --equal parameters
	$(RUN) 1.video-tokenizer/lab/experiments.py
	$(RUN) 1.video-tokenizer/lab/ablate.py
	$(RUN) 2.latent-action-model/lab/ablate.py
	$(RUN) 3.dynamics-model/lab/ablate.py
	$(RUN) 3.dynamics-model/lab/rooms.py
	$(RUN) 3.dynamics-model/lab/room_claims.py
	$(RUN) 3.dynamics-model/lab/experiments.py
	$(RUN) 3.dynamics-model/lab/compare.py
	$(RUN) 3.dynamics-model/lab/context_noise.py
	$(RUN) 3.dynamics-model/lab/long_context.py --measure exact
	$(RUN) 3.dynamics-model/lab/long_context.py --measure memory --lengths 1024 2048 4096 8192
	$(RUN) 3.dynamics-model/lab/long_context.py --measure training --lengths 512 1024 4096
	$(RUN) 3.dynamics-model/lab/long_context.py --measure packing
	$(RUN) 3.dynamics-model/lab/long_context.py --measure needle --lengths 160 640 --num-steps 400 --seeds 0 1 2
	$(RUN) 3.dynamics-model/lab/long_context.py --measure growth --lengths 160 640 --seeds 0 1 2

# the recording that `make world` makes, where it is not there yet
data/breakout: | $(VENV)/installed
	$(RUN) 1.video-tokenizer/record.py --env ALE/Breakout-v5 --num-frames 40000 --output $@ --seed 0

bench: $(VENV)/installed  ## measure how fast every part is on this machine, in minutes; let nothing else run meanwhile
	$(RUN) 4.inference/lab/benchmark.py

pictures: $(VENV)/installed data/breakout-unseen data/breakout  ## draw every picture of the chapters again, from the reference worlds, in minutes
	$(RUN) 1.video-tokenizer/lab/illustrate.py
	$(RUN) 1.video-tokenizer/lab/learning.py
	$(RUN) 1.video-tokenizer/validate.py --checkpoint assets/worlds/breakout/tokenizer.pt --data-path data/breakout-unseen --save-images --output assets/1.video-tokenizer --json assets/1.video-tokenizer/metrics.json
	$(RUN) 2.latent-action-model/validate.py --checkpoint assets/worlds/breakout/latent_action_model.pt --data-path data/breakout-unseen --save-images --output assets/2.latent-action-model --json assets/2.latent-action-model/metrics.json
	$(RUN) 2.latent-action-model/lab/illustrate.py
	$(RUN) 3.dynamics-model/validate.py --checkpoint assets/worlds/breakout/dynamics.pt --data-path data/breakout-unseen --save-images --output assets/3.dynamics-model --json assets/3.dynamics-model/metrics.json
	$(RUN) 3.dynamics-model/lab/illustrate.py
	$(RUN) 4.inference/lab/illustrate.py
	$(RUN) 4.inference/lab/overview.py
	$(RUN) 4.inference/uses/sharpening/validate.py --output assets/4.inference --json assets/4.inference/sharpening.json

# games that no training has seen
data/breakout-unseen: | $(VENV)/installed
	$(RUN) 1.video-tokenizer/record.py --env ALE/Breakout-v5 --num-frames 40000 --output $@ --seed 1

test: $(VENV)/installed-for-development  ## run every test
	$(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

faults: $(VENV)/installed-for-development  ## kill trainings, cut writes, feed readers with mutated bytes: what tests/README.md promises, in 90 minutes
	$(INSTALL) "atheris>=2.3"
	$(RUN) tests/faults/kill.py --json assets/faults/kill.json
	$(RUN) tests/faults/writes.py --json assets/faults/writes.json
	$(RUN) tests/faults/fuzz.py --json assets/faults/fuzz.json
	$(RUN) tests/faults/play.py --json assets/faults/play.json
	$(RUN) tests/faults/soak.py --json assets/faults/soak.json
	$(RUN) tests/faults/determinism.py --json assets/faults/determinism.json
	CONFIGS_TO_TRY=1000 $(RUN) -m pytest tests/training/test_configs.py

lint: $(VENV)/installed-for-development  ## check style (ruff), formatting (ruff format) and types (pyright)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

clean:  ## remove .venv and caches; recordings, checkpoints and worlds stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- installation: three stamps, each newer than what it was made from -----------------------------------------------------

$(VENV)/created:
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no $(PYTHON); install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: $(PYTHON) is Python %d.%d and 3.11 or newer is needed; name another: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml constraints.txt
	$(INSTALL) $(INDEX) --editable .
	@touch $@

$(VENV)/installed-for-development: $(VENV)/created pyproject.toml constraints.txt
	$(INSTALL) $(INDEX) --editable ".[test,lint]"
	@touch $@ $(VENV)/installed
