# Everything a fresh machine needs is set up here: Python >= 3.10 and make suffice; a C compiler adds
# the sparse engine.
PYTHON ?= python3
VENV   ?= .venv
CONSTRAINTS ?= constraints.txt
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# the stubs of the newest NumPy for Python 3.10 want arguments where later ones have defaults
MYPY   := if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then $(BIN)/mypy; \
  else echo "types: not checked, since that takes Python 3.11"; fi
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo int8 test quick check docs oldest newest kills fuzz sbom clean

demo: $(READY)  ## compress, attack, export, verify, time and report on real data, in about a minute
	$(BIN)/robust-edge demo --out demo-out --overwrite

# Of `make int8`: a folder with train/CLASS/* and test/CLASS/* in place of digits, more flags of compress, flags of
# verify, and the folder to write. Variables of the environment with these names are not meant for it.
DATA  =
TRAIN =
JUDGE = --max-clean-drop 2 --max-robust-drop 3
OUT   = int8-out
ENGINE := $(if $(filter aarch64 arm64,$(shell uname -m)),arm,x86)-cpu-sparse-int8

int8: $(READY)  ## a sparse network in 8 bits from nothing, of digits or of DATA=FOLDER: train, export, time, verify
	$(BIN)/robust-edge compress $(if $(DATA),--dataset folder --data-dir $(DATA) --arch resnet18 --eps 8/255,--dataset digits \
	  --eps 0.1) --scheme block --keep 0.1 --set training.quantize=int8 -o $(OUT)/run --overwrite $(TRAIN)
	$(BIN)/robust-edge export $(OUT)/run --target $(ENGINE) -o $(OUT)/bundle --overwrite
	$(BIN)/robust-edge bench $(OUT)/bundle
	$(BIN)/robust-edge verify $(OUT)/bundle --against $(OUT)/run $(JUDGE)

# what bundles contain, which runs on the oldest Python of any device, JetPack 4.6's
PYTHON_36 := $(wildcard exporters/robust_edge_exporters/templates exporters/robust_edge_exporters/formats/*/templates) \
  runtimes/robust_edge_runtimes/core/closeness.py runtimes/robust_edge_runtimes/core/files.py \
  runtimes/robust_edge_runtimes/core/pictures.py \
  runtimes/robust_edge_runtimes/formats/native/engine.py runtimes/robust_edge_runtimes/formats/tensorrt/engine

test: $(READY)  ## every test, warnings as errors; two workers of one thread each
	$(PYTEST) --durations 15

quick: $(READY)  ## in two to three minutes: lint, types, and the tests that need no compiler and no training
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(filter constraints.txt,$(CONSTRAINTS)),$(MYPY))
	$(PYTEST) -q -m quick

check: $(READY)  ## lint, types, import direction, the device side's Python version
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MYPY)
	$(BIN)/python -m pytest -q tests/meta/test_imports.py tests/meta/test_layers.py
	$(BIN)/vermin --quiet --no-tips --violations -t=3.8- runtimes/robust_edge_runtimes
	$(BIN)/vermin --quiet --no-tips --violations -t=3.6- $(PYTHON_36)

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than 3.10; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[all,dev]'
	@touch $@

docs: $(READY)  ## what the docs list of the code: modes, flags, attacks, settings, the schema of verify.json
	$(BIN)/python docs/generate.py

# without mypy: other versions' type stubs say less, or more
oldest newest: $(READY)  ## `make quick` without types, and the plans for a GPU, with the oldest or newest versions that pyproject.toml allows
	$(BIN)/python tests/packaging/bounds.py $@ > $(VENV)/$@.txt
	$(MAKE) quick VENV=$(VENV)-$@ CONSTRAINTS=$(VENV)/$@.txt
	OMP_NUM_THREADS=1 $(VENV)-$@/bin/python -m pytest -q tests/robust_edge/test_reproduce.py

N ?= 200
kills: $(READY)  ## kill commands at N random moments and repeat them, and start N/4 pairs of them at once; for a nightly job
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.endurance.kills --kills $(N) --pairs $$(($(N) / 4)) -o $(VENV)/kills

CASES ?= 100000
# each case writes files, which takes longer on a disk than to read them
MEMORY := $(wildcard /dev/shm)
fuzz: $(READY)  ## every reader of files reads CASES damaged ones; for a nightly job
	PYTEST_DEBUG_TEMPROOT=$(MEMORY) FUZZ_CASES=$(CASES) $(PYTEST) -s tests/attacks/test_fuzz.py \
	  tests/robust_edge/test_foreign_files.py tests/exporters/native/test_weights_file.py

sbom: $(READY)  ## robust-edge.cdx.json: the packages of `pip install '.[all]'` with versions and licences, in CycloneDX
	$(PYTHON) -m venv --clear --without-pip $(VENV)-sbom
	$(BIN)/python -m pip --python $(VENV)-sbom install --quiet --disable-pip-version-check -c constraints.txt '.[all]'
	version=$$($(BIN)/python -c 'import robust_edge_runtimes as own; print(own.__version__)') && \
	  sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml > $(VENV)-sbom/pyproject.toml
	$(BIN)/cyclonedx-py environment --pyproject $(VENV)-sbom/pyproject.toml --output-reproducible \
	  -o robust-edge.cdx.json $(VENV)-sbom
	rm -rf $(VENV)-sbom

clean:  ## the environments and what the demo wrote
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest $(VENV)-sbom demo-out int8-out
