"""The bundle: a directory that holds one trained model and everything known about it.

    manifest.json  encoder.safetensors  encoder.onnx  calibration.npz  engines/<target>/…

Nothing is read before its sha256 matches the manifest. `base`, the default, ships inside this package.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edge.errors import BundleError
from edge.outputs import naming

FORMAT = 1
BASE = Path(__file__).parent / "bundles" / "base"
MANIFEST = "manifest.json"
GRAPH, WEIGHTS, CALIBRATION = "encoder.onnx", "encoder.safetensors", "calibration.npz"
MAX_FILE_BYTES = 1 << 30


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


class Manifest(BaseModel):
    """What `manifest.json` holds. `encoder` is the sha256 of the weights: it names the model everywhere."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    name: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
    layout: Literal["core15"] = "core15"
    frames: int = Field(ge=8, le=512)
    seconds: float = Field(gt=0, le=60)
    embedding: int = Field(ge=8, le=4096)
    temperature: float = Field(ge=1e-3, le=10)
    opset: Annotated[int, Field(ge=17)] | None = None
    encoder: str
    files: dict[str, str] = {}
    architecture: dict[str, int | float] = {}
    training: dict[str, Any] = {}
    accuracy: dict[str, Any] = {}
    parity: dict[str, Any] = {}


def measured(m: Manifest) -> Iterator[str]:
    """What the training measured on people held out of it, in words, as the manifest has it."""
    found = m.accuracy.get("held_out_subjects_auroc_3_shot")
    if isinstance(found, dict) and found:
        held = ", ".join(f"{k} {v:.4f}" for k, v in found.items() if isinstance(v, int | float))
        yield f"people held out, AUROC with 3 clips of each action: {held}"
    else:
        yield "nothing was measured on people held out"
    calibration = m.accuracy.get("calibration")
    if isinstance(calibration, dict):
        rate = calibration.get("false_alarms_per_hour")
        if isinstance(rate, int | float):
            least = calibration.get("without_the_worst")
            yield f"people held out, false alarms a camera-hour: {rate:g}, without the worst streams {least}"
        else:
            yield "limits are a guess, and sensitivity has no effect: there was nobody to calibrate on"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle. Build one with `open_bundle`; read its files only through `read`, which checks them."""

    root: Path
    manifest: Manifest

    @property
    def model(self) -> str:
        """The model's short name: bundle name and the start of the encoder's hash."""
        return f"{self.manifest.name}-{self.manifest.encoder[:12]}"

    def read(self, name: str) -> bytes:
        """The bytes of one file, after its hash matched. Raises BundleError."""
        expected = self.manifest.files.get(name)
        if expected is None:
            fix = f"haad-edge build {self.root} --target onnx" if name == GRAPH else "train it anew: haad-edge train"
            raise BundleError(f"{self.root}: no '{name}' in this bundle", fix=fix)
        path = self.root / name
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise BundleError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
            data = path.read_bytes()
        except (OSError, ValueError) as e:  # ValueError: a name that no file can have
            raise BundleError(f"{path}: cannot be read", why=str(e), fix="copy the bundle again, whole") from None
        if hashlib.sha256(data).hexdigest() != expected:
            raise BundleError(
                f"{path}: its sha256 is not the one in manifest.json",
                why="the file was changed or damaged after it was written",
                fix="copy the bundle again, or build it anew; nothing of it was loaded",
            )
        return data

    def calibration(self) -> dict[str, NDArray[Any]]:
        """The arrays of calibration.npz: `cohort` (N, D) unit embeddings, and the constants of the score."""
        data = self.read(CALIBRATION)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as z:
                return {k: z[k] for k in z.files}
        except Exception as e:  # its hash matched, so it was written so; zipfile, zlib and numpy raise many kinds
            raise BundleError(
                f"{self.root / CALIBRATION}: not a calibration", why=str(e), fix="build the bundle anew"
            ) from None


def open_bundle(root: Path | str | None = None) -> Bundle:
    """Read and check a bundle's manifest (`base` when none is named). Raises BundleError. Hashes come on read."""
    root = Path(root) if root is not None else BASE
    path = root / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise BundleError(
            f"{root}: not a bundle",
            why="it has no manifest.json"
            if root.is_dir()
            else "no such folder"
            if not root.exists()
            else str(e.strerror),
            fix="haad-edge train --data DIR --out BUNDLE makes one; without --bundle `base` is used",
        ) from None
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: not JSON", why=str(e), fix="copy the bundle again, whole") from None
    if isinstance(raw, dict) and raw.get("format") != FORMAT:
        raise BundleError(
            f"{root}: bundle format {raw.get('format')!r}", why=f"this program reads {FORMAT}", fix="upgrade haad-edge"
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as e:
        first = e.errors()[0]
        raise BundleError(f"{path}: field '{'.'.join(map(str, first['loc']))}'", why=first["msg"]) from None
    for name in manifest.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{path}: file name {name!r} leads out of the bundle")
    if manifest.files.get(WEIGHTS, manifest.encoder) != manifest.encoder:
        raise BundleError(f"{path}: field 'encoder' is not the hash of {WEIGHTS}", fix="copy the bundle again, whole")
    return Bundle(root, manifest)


def write_bundle(root: Path, manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    """Write `files` and a manifest with their hashes, each in one atomic step, the manifest last.

    Files that the manifest lists already and that are not given stay as they are.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        replace(root / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = manifest.model_copy(update={"files": {**manifest.files, **hashes}})
    replace(root / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return Bundle(root, manifest)


def add_to_bundle(bundle: Bundle, files: dict[str, bytes], *, made_of: str, **changed: Any) -> Bundle:
    """Write what was made of the bundle's file `made_of` beside whatever is in there by now.

    Between its opening and this another process may have added to it, which stays. Raises BundleError if that was
    another `made_of` or another model. `changed`: fields of the manifest.
    """
    with alone(bundle.root):
        now, m = open_bundle(bundle.root), bundle.manifest
        if (now.manifest.encoder, now.manifest.files.get(made_of)) != (m.encoder, m.files.get(made_of)):
            raise BundleError(
                f"{bundle.root}: its {made_of} was changed while something was made of it",
                why="by another command; what it wrote is left as it is",
                fix="run this one once more",
            )
        for path in (bundle.root / name for name in (*files, MANIFEST)):
            for half in path.parent.glob(f".{path.name}.*.tmp"):  # of who was killed while they wrote it
                half.unlink(missing_ok=True)
        return write_bundle(bundle.root, now.manifest.model_copy(update=changed), files)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until nobody else holds this file or folder, and hold it; where the file system has no locks, do not."""
    there = None
    try:
        with contextlib.suppress(OSError):
            there = os.open(path, os.O_RDONLY)
            fcntl.flock(there, fcntl.LOCK_EX)
        yield
    finally:
        if there is not None:
            os.close(there)


def replace(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a power cut, finds the old content or the new, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
