# make demo   train, prune, fine-tune and compare YOLOv8n on generated images (minutes on two CPU cores)
# make test   ruff, pyright and the whole default test suite, one worker per core (one test by hand: pytest FILE::TEST)
# make results   every table and figure under results/, in README.md and docs/, from the records alone
# make docs   the documentation as a site in site/ (python -m http.server -d site); brings mkdocs
# All set up .venv from requirements.lock first; nothing but Python 3.11-3.13 and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test results docs lint lock clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/python run.py -m method=paper,strong ratio=0.2,0.5,0.7

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest -n auto --dist loadfile

results: $(READY)
	$(BIN)/python results/render.py

# Only this target needs mkdocs: it stands in the extra `docs`, not in the lock.
docs: $(READY)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; run make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Pin the newest versions that pyproject.toml allows: hashes, no addresses.
lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --universal --upgrade --python-version 3.11 \
		--extra suite --extra export --extra dev \
		--generate-hashes --no-annotate --no-header --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) outputs multirun site
