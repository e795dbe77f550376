# All that is installed lives in .venv; every target can be called again at any time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
BUILD  := $(BIN)/python website/book.py -W -n --keep-going
# A page does not know on which notebooks, modules and settings it depends, so all are written again,
# unless nothing but the text of pages has changed since the last good build.
BUILT  := _build/.built
ADDRESS = $(BOOK_URL) $(BOOK_REPO_URL) $(BOOK_REPO_BRANCH) $(BOOK_COMMENTS)
CHANGED = find book notebooks src website *.* Makefile \( -name __pycache__ -o -path website/tests \) -prune \
          -o -type f -newer $(BUILT) ! -path 'book/*.md' ! -name '*.md' -print -quit
PORT   ?= 8000

# Python 3.11 reads the path of this folder in the encoding of the locale, and "C" knows only ASCII.
ifneq (,$(filter C POSIX,$(or $(LC_ALL),$(LC_CTYPE),$(LANG),C)))
export LC_ALL := C.UTF-8
endif

.DEFAULT_GOAL := help
.PHONY: help book test gpu practice check-site lighthouse links lint format bench experiments serve live lab pdf slides zip wheel clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "dsnotes needs Python 3.11 or newer; set it with: make PYTHON=python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[book,test,lint,site]'
	@touch $@

book: $(READY)  ## run all notebooks and build the book into _build/html
	@if [ "$$(cat $(BUILT) 2>&1)" = "$(ADDRESS)" ] && [ -z "$$($(CHANGED))" ]; then all=; else all=--all; fi; \
	    rm -f $(BUILT); $(BUILD) $$all && echo "$(ADDRESS)" >$(BUILT)
	@echo; echo "Open it: file://$(CURDIR)/_build/html/index.html   (or: make serve)"

test: $(READY)  ## run all tests of the library and the repository
	$(BIN)/python -m pytest

gpu: $(READY)  ## run the tests and benchmarks that need a GPU (CUDA)
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else \
	    "make gpu: PyTorch finds no CUDA GPU on this machine, nothing ran")'
	$(BIN)/python -m pytest -m gpu tests
	$(BIN)/python -m benchmarks.run --gpu --json _build/bench-gpu.json

practice: $(READY)  ## write a mechanism yourself, or grade it: make practice SECTION=moe (or BUG=moe-1)
	@$(BIN)/python -m dsnotes.practice $(SECTION) $(if $(BUG),--bug $(BUG))

check-site: book  ## test the built book in a browser (needs Chromium)
	$(BIN)/python -m pytest website/tests/browser

lighthouse: book  ## score every kind of page with Lighthouse (needs Chromium and Node); reports in _build/lighthouse
	@command -v npx >/dev/null || { echo "this needs npx of Node: install it (Debian: apt install npm)" >&2; exit 1; }
	cd _build && CHROME_PATH="$$CHROMIUM" npx --yes @lhci/cli@0.15.1 autorun --config=../website/lighthouserc.json

links: book  ## ask every address outside the book that it links to (needs the internet)
	$(BIN)/python website/book.py --builder custom --custom-builder linkcheck

lint: $(READY)  ## check code, types, notebooks and Chinese copy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb
	$(BIN)/python website/lint_zh.py

format: $(READY)  ## rewrite code, notebooks and Chinese copy in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --keep-id notebooks/*.ipynb
	$(BIN)/python website/lint_zh.py --fix

bench: $(READY)  ## measure side by side with peers; table on screen, JSON in _build/bench.json
	$(BIN)/python -m benchmarks.run --json _build/bench.json

experiments: $(READY)  ## run the long experiments again (writes book/data/runs/)
	for script in experiments/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

serve: book  ## serve the built book on http://127.0.0.1:PORT (default 8000)
	$(BIN)/python website/serve.py --port $(PORT)

live: book  ## serve the book with live code: edit and run the cells in the page
	$(BIN)/python website/live.py --port $(PORT)

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --ip=127.0.0.1 --allow-root notebooks

pdf: book  ## print the book to dist/dsnotes.pdf (needs Chromium)
	$(BIN)/python website/pdf.py

slides: book  ## print the slides, sheets and quiz answers into dist/slides/ (needs Chromium)
	$(BIN)/python website/slides.py

zip: book  ## pack the built book for reading offline into dist/dsnotes-html.zip
	$(BIN)/python website/zip.py

wheel: $(READY)  ## build the wheel and the sdist of the library into dist/
	$(BIN)/python -m build

clean:  ## remove what was built (keeps the environment and the execution cache)
	rm -rf _build/html _build/.doctrees $(BUILT) dist build .pytest_cache .mypy_cache .ruff_cache

distclean: clean  ## remove the environment and the execution cache as well
	rm -rf _build $(VENV)
