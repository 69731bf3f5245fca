# make demo: the whole flow on a real model.  make test: everything that must hold.  Both install what they need into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NBS := $(shell find nbs -name '*.ipynb' -not -path '*/benchmarks/*' -not -path '*/.ipynb_checkpoints/*' | sort)
# A folder that mirrors hub names, for the tests that run benchmark tasks on real rows; without one they are skipped, and say so.
export MPQ_DATA ?= $(abspath $(wildcard ../shared/hub))

.PHONY: demo gpu test long engines docs docs-stage quarto smoke licences audit notebooks readme clean
demo: $(STAMP)
	$(BIN)/mpq demo

# On a GPU: measures what the notebook of the GPU lacks on this card. Without one it shows the rows that are there.
gpu: $(STAMP)
	$(BIN)/python tests/execute.py nbs/benchmarks/gpu.ipynb
	$(BIN)/nbdev_clean

# Two processes of one thread each get more done on two cores than one process with two threads.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n 2

# What takes too long for every change: 20 kills a command at random moments, 100,000 mutated files a parser, packed folders of every multimodal model.
long: $(STAMP)
	OMP_NUM_THREADS=1 KILLS=20 FUZZ=100000 LONG=1 $(BIN)/python -m pytest tests/test_kills.py tests/test_fuzz.py tests/test_long.py tests/test_multimodal.py tests/test_decoders.py -n 2 -s

# What is promised of engines: their environments, in .engines (some GB), every kind of checkpoint in each, and the table against what came of it.
engines: $(STAMP)
	$(BIN)/python tests/engines/install.py
	$(BIN)/python tests/engines/run.py
	$(BIN)/python -m pytest tests/engines tests/engines/cards.py

$(STAMP): settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# The first prerequisite says what is missing before anything is installed.
docs: quarto $(STAMP)
	$(BIN)/python tests/docs.py

quarto:
	@command -v quarto >/dev/null || { echo "make docs: Quarto, which renders the pages, is not on the PATH. Get it from https://quarto.org/docs/get-started; without it, make docs-stage does everything but the rendering." >&2; exit 1; }

docs-stage: $(STAMP)
	$(BIN)/python tests/docs.py --stage

# The wheel, in an empty environment of each Python named: make smoke PYTHONS="python3.10 python3.13"
smoke:
	$(PYTHON) tests/smoke.py $(PYTHONS)

# What pip install brings and under which licences, and whether anything known speaks against the versions that are tested with.
licences: $(STAMP)
	$(BIN)/python tests/supply.py

audit: $(STAMP)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip

# Runs every notebook and keeps its outputs; what is committed is what it writes.
notebooks: $(STAMP)
	$(BIN)/nbdev_export
	$(BIN)/python tests/execute.py $(NBS)
	$(BIN)/nbdev_clean
	$(MAKE) readme

readme: $(STAMP)
	$(BIN)/python tests/readme.py > README.md

clean:
	rm -rf .venv demo build _proc _docs *.egg-info
