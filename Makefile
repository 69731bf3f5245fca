# make demo: the whole flow on a real model.  make test: everything that must hold.  Both install what they need into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NBS := $(wildcard nbs/*.ipynb) $(wildcard nbs/tutorials/*.ipynb)
# A folder that mirrors hub names, for the tests that run benchmark tasks on real rows; without one they are skipped, and say so.
export MPQ_DATA ?= $(abspath $(wildcard ../shared/hub))

.PHONY: demo test docs notebooks readme clean
demo: $(STAMP)
	$(BIN)/mpq demo

# Two processes of one thread each get more done on two cores than one process with two threads.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n 2 --dist loadgroup

$(STAMP): settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

docs: $(STAMP)
	@command -v quarto >/dev/null || { echo "make docs needs Quarto on the PATH: https://quarto.org/docs/get-started"; exit 1; }
	$(BIN)/nbdev_docs

# Runs every notebook and keeps its outputs; what is committed is what it writes.
notebooks: $(STAMP)
	$(BIN)/nbdev_export
	$(BIN)/python tests/execute.py $(NBS)
	$(BIN)/nbdev_clean
	$(MAKE) readme

readme: $(STAMP)
	$(BIN)/python tests/readme.py > README.md

clean:
	rm -rf .venv demo build *.egg-info
