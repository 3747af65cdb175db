"""Reads and writes bundles: a bundle is a folder that holds one trained model and everything known about it.

    manifest.json  encoder.safetensors  encoder.onnx  calibration.npz  engines/<target>/…

No file is used unless its sha256 matches the manifest. `base`, the default, ships inside this package.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edge.errors import BundleError, command
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
    """The content of `manifest.json`. `encoder` is the sha256 of the weights, which identifies the model everywhere."""

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
    """The lines that say what training measured on people held out of it, according to the manifest."""
    found = m.accuracy.get("held_out_subjects_auroc_3_shot")
    if isinstance(found, dict) and found:
        held = ", ".join(f"{k} {v:.4f}" for k, v in found.items() if isinstance(v, int | float))
        yield f"people held out, AUROC with 3 clips of each action: {held}"
    else:
        yield "nothing was measured, since no people were held out"
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
        """Read one file and check its hash. Raises BundleError."""
        expected = self.manifest.files.get(name)
        if expected is None:
            fix = command("build", self.root, "--target", "onnx") if name == GRAPH else "copy the whole bundle again"
            raise BundleError(f"{self.root}: no '{name}' in this bundle", fix=fix)
        path = self.root / name
        try:
            data = _content(path)
        except (OSError, ValueError) as e:  # ValueError: a name that no file can have
            raise BundleError(f"{path}: cannot be read", why=str(e), fix="copy the whole bundle again") from None
        if hashlib.sha256(data).hexdigest() != expected:
            raise BundleError(
                f"{path}: its sha256 is not the one in manifest.json",
                why="the file was changed or damaged after it was written, so it was not loaded",
                fix="copy the whole bundle again, or build it again",
            )
        return data

    def calibration(self) -> dict[str, NDArray[Any]]:
        """The arrays of calibration.npz: `cohort` (N, D) unit embeddings, and the constants of the score."""
        data = self.read(CALIBRATION)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as z:
                return {k: z[k] for k in z.files}
        except Exception as e:  # its hash matched, so it was written like this; zipfile, zlib, numpy raise many kinds
            raise BundleError(
                f"{self.root / CALIBRATION}: not a calibration", why=str(e), fix="build the bundle again"
            ) from None


def _content(path: Path) -> bytes:
    """A file's bytes. Raises ValueError for what is no file, such as a pipe that never ends, and for a huge one."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a file")
    with path.open("rb") as f:
        data = f.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
    return data


def open_bundle(root: Path | str | None = None) -> Bundle:
    """Read and check a bundle's manifest (default: `base`). Raises BundleError.

    The files themselves are checked when they are read.
    """
    root = Path(root) if root is not None else BASE
    path = root / MANIFEST
    try:
        raw = json.loads(_content(path).decode())
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
        raise BundleError(f"{path}: not JSON", why=str(e), fix="copy the whole bundle again") from None
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
            raise BundleError(f"{path}: file name {name!r} points outside the bundle")
    if manifest.files.get(WEIGHTS, manifest.encoder) != manifest.encoder:
        raise BundleError(f"{path}: field 'encoder' is not the hash of {WEIGHTS}", fix="copy the whole bundle again")
    return Bundle(root, manifest)


def write_bundle(root: Path, manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    """Write `files` and a manifest with their hashes, each atomically, the manifest last.

    Other files that the manifest lists stay as they are.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        replace_file(root / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = manifest.model_copy(update={"files": {**manifest.files, **hashes}})
    replace_file(root / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return Bundle(root, manifest)


def add_to_bundle(bundle: Bundle, files: dict[str, bytes], *, made_of: str, **changed: Any) -> Bundle:
    """Add files that were made from the bundle's file `made_of`, and change fields of the manifest (`changed`).

    Whatever another process has added since the bundle was opened stays. Raises BundleError if that was another
    `made_of` or another model.
    """
    with locked(bundle.root):
        now, m = open_bundle(bundle.root), bundle.manifest
        if (now.manifest.encoder, now.manifest.files.get(made_of)) != (m.encoder, m.files.get(made_of)):
            raise BundleError(
                f"{bundle.root}: its {made_of} was changed while this command worked with it",
                why="another command changed it; what that wrote is left as it is",
                fix="run this command again",
            )
        for path in (bundle.root / name for name in (*files, MANIFEST)):
            for half in path.parent.glob(f".{path.name}.*.tmp"):  # left by processes killed while writing
                half.unlink(missing_ok=True)
        return write_bundle(bundle.root, now.manifest.model_copy(update=changed), files)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file or folder, waiting for it if need be; none if the file system has no locks."""
    there = None
    try:
        with contextlib.suppress(OSError):
            there = os.open(path, os.O_RDONLY)
            fcntl.flock(there, fcntl.LOCK_EX)
        yield
    finally:
        if there is not None:
            os.close(there)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader, or a power cut, finds the old content or the new, never a mixture."""
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
