"""Reads and writes motion models: `motion.json`, the manifest, and `motion.safetensors`, the weights.

Nothing is loaded before its sha256 matches.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from edge.bundle import MAX_FILE_BYTES, replace_file
from edge.errors import BundleError
from trainer.motion.diffusion import MotionNet, MotionShape

FORMAT = 1
MANIFEST, WEIGHTS = "motion.json", "motion.safetensors"
TRAIN = "haad-edge train-motion --data DIR --out MODEL"


class MotionManifest(BaseModel):
    """What `motion.json` holds. `weights` is the sha256 of the weights: it names the model in every clip it made."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    name: str = Field(pattern=r"^[\w.+-]{1,64}$")
    layout: Literal["core15"] = "core15"
    span: float = Field(gt=0, le=60)
    weights: str
    shape: MotionShape
    training: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class MotionModel:
    """An opened motion model, ready to sample."""

    manifest: MotionManifest
    net: MotionNet

    @property
    def name(self) -> str:
        """Its name and the start of its weights' hash."""
        return f"{self.manifest.name}-{self.manifest.weights[:12]}"


def write_motion(root: Path, net: MotionNet, *, name: str, span: float, training: dict[str, Any]) -> MotionModel:
    """Write the model to a folder: each file in one atomic step, the manifest last."""
    weights = save_tensors({k: v.contiguous() for k, v in net.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    manifest = MotionManifest(name=name, span=span, weights=digest, shape=net.shape, training=training)
    replace_file(root / WEIGHTS, weights)
    replace_file(root / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return MotionModel(manifest, net.eval())


def open_motion(root: Path | str) -> MotionModel:
    """Read and check a motion model. Raises BundleError, which names the file and what is wrong with it."""
    root = Path(root)
    path = root / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise BundleError(f"{root}: not a motion model", why=f"it has no readable {MANIFEST}", fix=TRAIN) from None
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: not JSON", why=str(e), fix="copy the model again, whole") from None
    if isinstance(raw, dict) and raw.get("format") != FORMAT:
        raise BundleError(
            f"{root}: motion model format {raw.get('format')!r}", why=f"this program reads {FORMAT}", fix=TRAIN
        )
    try:
        manifest = MotionManifest.model_validate(raw)
    except ValidationError as e:
        first = e.errors()[0]
        raise BundleError(f"{path}: field '{'.'.join(map(str, first['loc']))}'", why=first["msg"]) from None
    return MotionModel(manifest, _load(root / WEIGHTS, manifest))


def _load(path: Path, manifest: MotionManifest) -> MotionNet:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BundleError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as e:
        raise BundleError(
            f"{path}: cannot be read", why=e.strerror or str(e), fix="copy the model again, whole"
        ) from None
    if hashlib.sha256(data).hexdigest() != manifest.weights:
        raise BundleError(
            f"{path}: its sha256 is not the one in {MANIFEST}",
            why="the file was changed or damaged after it was written",
            fix="copy the model again, whole, or train it anew; nothing of it was loaded",
        )
    try:
        net = MotionNet(manifest.shape)
        net.load_state_dict(load_tensors(data))
    except Exception as e:  # the hash matched, so the shape in the manifest is wrong; torch raises many types
        raise BundleError(
            f"{path}: does not fit the shape in {MANIFEST}", why=str(e)[:200], fix="copy the model again, whole"
        ) from None
    if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
        raise BundleError(f"{path}: some weights are not finite", fix="train it anew, with a lower learning_rate")
    return net.eval()
