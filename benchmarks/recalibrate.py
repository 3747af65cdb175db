"""Calibrates a bundle anew without training it: `python -m benchmarks.recalibrate --data DIR [--bundle B]`.

This is needed when the rules of `trainer.calibrate` or `edge.score` have changed. DIR holds the sets that the bundle's
manifest names; the encoder runs as the bundle's own ONNX graph. In the manifest only the calibration's figures change.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from edge.bundle import CALIBRATION, Bundle, open_bundle, write_bundle
from edge.engine import embed, open_engine
from trainer.calibrate import calibrate
from trainer.config import TrainConfig
from trainer.datasets import ClipSet, held_out
from trainer.fit import load_sets


def recalibrate(bundle: Bundle, sets: list[ClipSet]) -> dict[str, Any]:
    """Calibrate on the people held out of the bundle's training, and write the bundle; returns the figures."""
    config = TrainConfig.model_validate(bundle.manifest.training["config"])
    test = [held_out(s.subjects, config.hold_out) for s in sets]
    arrays, figures = calibrate(sets, test, partial(embed, open_engine(bundle, max_batch=256)), config)
    accuracy = bundle.manifest.accuracy | {"calibration": figures}
    write_bundle(bundle.root, bundle.manifest.model_copy(update={"accuracy": accuracy}), {CALIBRATION: arrays})
    return figures


def main() -> None:
    """Calibrate, and write the bundle's calibration.npz and manifest.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<set>/<category>/*.npz")
    parser.add_argument("--bundle", type=Path, help="default: base")
    options = parser.parse_args()
    bundle, began = open_bundle(options.bundle), time.process_time()
    named = {s["name"]: s["sha256"] for s in bundle.manifest.training["sets"]}
    config = TrainConfig.model_validate(bundle.manifest.training["config"])
    sets = [s for s in load_sets(options.data, config) if s.name in named]
    changed = [n for n in named if named[n] not in {s.digest for s in sets}]
    if changed:
        raise SystemExit(
            f"these sets are missing, or not the clips that the bundle was trained on: {', '.join(changed)}"
        )
    print(json.dumps(recalibrate(bundle, sets), indent=1))
    print(f"{bundle.root}: calibrated anew in {time.process_time() - began:.0f} CPU seconds")


if __name__ == "__main__":
    main()
