# Everything below works in a fresh clone: the environment is made when it is first needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test slow check docs format bench torture real-data keras elasticsearch gpu clean

demo: $(READY)
	$(BIN)/multistep demo

# A process a core, each with one thread: two that each have a thread a core slow each other tenfold.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -m "not slow"

# What takes long and hardly ever changes; .ci/run calls it behind the tests.
slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -m slow

check: $(READY)
	$(BIN)/ruff check src tests bench mkdocs_hooks.py
	$(BIN)/ruff format --check src tests bench mkdocs_hooks.py
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --site-dir build/site

docs: $(READY)
	$(BIN)/mkdocs serve

format: $(READY)
	$(BIN)/ruff check --fix src tests bench mkdocs_hooks.py
	$(BIN)/ruff format src tests bench mkdocs_hooks.py

# Longer than a test may take; each prints what the docs hold.
torture: $(READY)
	$(BIN)/python bench/kills.py

real-data: $(READY)
	$(BIN)/python -m pytest -m real_data -o addopts="--strict-markers --strict-config -q"

# Keras on TensorFlow and on JAX, and exports to TensorFlow; 1.5 GB in an environment of its own that rests on the other one.
KERAS := build/keras
keras: $(KERAS)/.ready
	OMP_NUM_THREADS=1 KERAS_BACKEND=tensorflow $(KERAS)/bin/python -m pytest tests/test_keras.py
	OMP_NUM_THREADS=1 KERAS_BACKEND=jax $(KERAS)/bin/python -m pytest tests/test_keras.py
	OMP_NUM_THREADS=1 $(KERAS)/bin/python -m pytest tests/test_export_tensorflow.py

$(KERAS)/.ready: $(READY) pyproject.toml
	$(PYTHON) -m venv $(KERAS)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])" > $$($(KERAS)/bin/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")/multistep-environment.pth
	$(BIN)/python -c "print('$(CURDIR)/src')" >> $$($(KERAS)/bin/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")/multistep-environment.pth
	$(KERAS)/bin/python -m pip install --quiet --disable-pip-version-check "keras>=3.11" "tensorflow-cpu>=2.20" jax
	touch $@

# An Elasticsearch server, which ELASTICSEARCH_URL names: reads an index, uploads a classifier, has its pipeline ask it.
elasticsearch: $(READY)
	$(if $(ELASTICSEARCH_URL),,$(error name the server: make elasticsearch ELASTICSEARCH_URL=http://localhost:9200))
	$(BIN)/python -c "import elasticsearch" 2>/dev/null || $(BIN)/python -m pip install "elasticsearch>=8.15,<10"
	$(BIN)/python bench/elastic.py $(ELASTICSEARCH_URL)

# Installs nothing and asks no network, since a machine with a GPU may be bare: any Python with torch will do
# (`make gpu PYTHON=...`), and what is not installed there is left out and said.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) bench/gpu.py

bench: $(READY)
	$(BIN)/python bench/stability.py
	$(BIN)/python bench/verdicts.py
	$(BIN)/python bench/whole_runs.py
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/moves.py
	$(BIN)/python bench/probes.py
	$(BIN)/python bench/pretrained.py
	$(BIN)/python bench/passes.py --head
	$(BIN)/python bench/language.py
	$(BIN)/python bench/images.py
	$(BIN)/python bench/speech.py
	for way in multistep plain adamw; do $(BIN)/python bench/regret.py run --out build/bench-regret --way $$way || exit 1; done
	$(BIN)/python bench/regret.py report build/bench-regret
	$(BIN)/python bench/regret.py link build/bench-regret
	$(BIN)/python bench/more_time.py --out build/bench-more-time

# torch comes first and pinned, so that a CPU build is taken where one is offered; the rest finds it installed.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) build dist runs
