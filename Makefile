# Every target makes its own .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint bench accuracy base demo-motion clean

demo: .venv/.plain
	$(BIN)/haad-edge demo

test: .venv/.dev lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.dev
	$(PIP) install -q -e '.[bench]'
	$(BIN)/python -m benchmarks.stream

# Trains two dozen encoders, which takes hours: make accuracy DATA=DIR, a folder of clip sets. Repeat to resume.
accuracy: .venv/.dev
	$(BIN)/python -m benchmarks.accuracy --data $(DATA) --steps 3000 --bundle edge/bundles/base

# Trains and builds the bundle that ships inside the package: make base DATA=DIR, a folder of clip sets
base: .venv/.dev
	test -e build/base/manifest.json || $(BIN)/haad-edge train --data $(DATA) --out build/base --config configs/train-base.yaml
	$(BIN)/haad-edge build build/base --target onnx
	rm -rf edge/bundles/base && mv build/base edge/bundles/base

# Makes the clips that the demo plays, which ship inside the package: make demo-motion MOTION=DIR, a motion model
demo-motion: .venv/.dev
	$(BIN)/python -m trainer.motion.demo --motion $(MOTION)

# What a device needs: no torch.
.venv/.plain: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -e .
	touch $@

# Everything for development; without the pins in constraints.txt, pip would download gigabytes more.
.venv/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt -e '.[train,dev]'
	touch $@ .venv/.plain

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
