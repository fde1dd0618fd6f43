# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` do all the set-up that a fresh machine needs. `make gpu-check` installs nothing where a `ggdr`
# is found, so that it needs no network.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test gpu-check clean

demo: $(READY)
	@mkdir -p demo
	@test -f demo/digits.zip || $(BIN)/ggdr dataset digits demo/digits.zip --channels 1
	$(BIN)/ggdr train --data demo/digits.zip --outdir demo/run --cfg demo --metrics fd_lite1k_full --resume latest
	$(BIN)/ggdr curves demo/run --out demo/curves.png
	$(BIN)/ggdr generate --network demo/run/network-snapshot-000028.safetensors --seeds 0-63 --trunc 0.8 --grid 8x8 \
	  --outdir demo
	$(BIN)/ggdr clusters --run demo/run
	$(BIN)/ggdr report demo/run --out demo/report.html --open
	@echo
	@echo "All of it on one page:    demo/report.html"
	@echo "64 new samples:           demo/grid.png"
	@echo "Clusters of the generator's features over training: demo/run/clusters/over-training-16x16.png"
	@echo "What the discriminator knows of them:               demo/run/clusters/over-training-agreement.png"
	@echo "Losses, the GGDR distance and a metric:             demo/curves.png"

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --maxprocesses 8

# All that is worth knowing of a machine with a GPU, into one file; docs/gpu.md explains it.
gpu-check:
	@command -v ggdr >/dev/null || test -x $(BIN)/ggdr || $(MAKE) $(READY)
	@if command -v ggdr >/dev/null; then ggdr accept; else $(BIN)/ggdr accept; fi

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf .venv demo build dist *.egg-info
