"""Golden vectors: parameters by rule, a synthetic cine, and the published network's answers to it.

The vectors were recorded once by running the published model code in float64 with the synthetic
parameters of this file, and rounded to float32. They contain no published code, no trained weight
and no patient data. Cases ``official_a`` and ``rerelease_a`` lie in ``vectors``, the larger ones
beside the checkout.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]

VECTORS = Path(__file__).with_name("vectors")
FINGERPRINT = "db6deb1ce65e112f64faf0125294dc694d0625f58c7875b6fd59015b084b38fa"
CINE_SEED = 20250415
NORMS = ("norm", "bn1", "bn2", "bn3")


@dataclass(frozen=True)
class Tolerances:
    """How far a port may be from the recorded run, absolute but for the object memory.

    Attributes:
        objects: relative to the largest entry.
    """

    logits: float
    masks: float
    memory: float
    sensory: float
    objects: float
    sensory_auxiliary: float


TOLERANCES = {
    torch.float64: Tolerances(2e-6, 1e-6, 2e-6, 1e-6, 1e-6, 1e-5),
    torch.float32: Tolerances(1e-4, 3e-5, 5e-5, 5e-5, 1e-5, 2e-2),
}


def read_index() -> list[tuple[str, Shape, str]]:
    """Name, shape and type of every entry of the published state dict, in its order."""
    lines = (VECTORS / "state_dict_index.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return [
        (name, () if shape == "scalar" else tuple(map(int, shape.split("x"))), dtype)
        for name, shape, dtype in rows
    ]


def parameter(name: str, shape: Shape) -> Array:
    """The golden value of a state-dict entry: it follows from name and shape alone."""
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "inv_freq":
        return np.asarray(128.0 ** -(np.arange(shape[0]) / shape[0]), np.float32)
    return np.asarray(scaled(normal(name, shape), name), np.float32)


def normal(name: str, shape: Shape) -> Array:
    """Normal numbers seeded by a name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)


def scaled(n: Array, name: str) -> Array:
    """Normal numbers brought to the size that the kind of entry wants."""
    *owners, leaf = name.split(".")
    is_norm = owners[-1:] in [[part] for part in NORMS] or owners[-2:] == ["downsample", "1"]
    match leaf:
        case "running_mean":
            return 0.05 * n
        case "running_var":
            return 1.0 + 0.1 * np.abs(n)
        case "dt_bias":
            return -0.5 + 0.3 * n
        case "A_log":
            return 0.2 * n
        case _ if owners[-1] in ("query_init", "query_emb"):
            return 0.5 * n
        case _ if leaf.endswith("bias"):
            return (0.05 if is_norm else 0.01) * n
        case _ if n.ndim == 1:
            return 1.0 + 0.05 * n
    return n / np.sqrt(float(np.prod(n.shape[1:])))


def embedding_input(name: str, shape: Shape) -> Array:
    """A random input of case e, made like an embedding."""
    return np.asarray(0.5 * normal(f"input.{name}.weight", shape), np.float32)


def parameters() -> dict[str, Array]:
    """The whole golden state dict."""
    return {name: parameter(name, shape) for name, shape, _ in read_index()}


def fingerprint(values: Mapping[str, Array]) -> str:
    """SHA-256 over names and little-endian bytes, in order."""
    digest = hashlib.sha256()
    for name, value in values.items():
        digest.update(name.encode())
        digest.update(value.astype(value.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def cine(frames: int, height_px: int, width_px: int) -> Array:
    """A ring around a dark ellipse that beats and drifts under speckle, grey values times 255."""
    random = np.random.Generator(np.random.PCG64(CINE_SEED))
    y, x = np.meshgrid(
        (np.arange(height_px) + 0.5) / height_px,
        (np.arange(width_px) + 0.5) / width_px,
        indexing="ij",
    )
    still = random.standard_normal((height_px, width_px))
    images = []
    for t in range(frames):
        phase = 2.0 * np.pi * t / 12.0
        across = (x - (0.50 + 0.04 * np.sin(phase))) / (0.19 * (1.0 + 0.20 * np.cos(phase)))
        along = (y - (0.48 + 0.03 * np.cos(phase))) / (0.28 * (1.0 + 0.14 * np.cos(phase)))
        r = across**2 + along**2
        clean = np.where(r < 1.0, 0.06, 0.22 + 0.10 * y) + 0.55 * ((r >= 1.0) & (r < 1.9))
        moving = random.standard_normal((height_px, width_px))
        speckle = 1.0 + 0.22 * (0.8 * still + 0.6 * moving)
        images.append(np.rint(np.clip(clean * speckle, 0.0, 1.0) * 255.0).astype(np.uint8))
    return np.stack(images)


def to_images(frames_u8: Array, dtype: torch.dtype) -> Tensor:
    """images_BTHW of one session from frames_u8 (T, H, W)."""
    return (torch.from_numpy(frames_u8.astype(np.float32) / np.float32(255)).to(dtype))[None]


@dataclass(frozen=True)
class Case:
    """One recorded run."""

    arrays: Mapping[str, Array]
    meta: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Case":
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files if name != "meta"}
            return cls(arrays, json.loads(str(file["meta"])))

    def images(self, dtype: torch.dtype) -> Tensor:
        """images_BTHW."""
        return to_images(self.arrays["frames_u8"], dtype)


def assert_near(found: Tensor, recorded: Array, atol: float, what: str) -> None:
    """Compare with a recorded array, whose own rounding to float32 counts as equal."""
    wanted = torch.from_numpy(recorded).to(found.dtype)
    torch.testing.assert_close(
        found, wanted, atol=atol, rtol=1.2e-7, msg=lambda text: f"{what}: {text}"
    )


def assert_near_largest(found: Tensor, recorded: Array, share: float, what: str) -> None:
    """Compare with a recorded array, the tolerance a share of its largest entry."""
    assert_near(found, recorded, share * float(np.abs(recorded).max()), what)


def count(tensors: Iterable[Tensor]) -> int:
    """How many numbers they hold together."""
    return sum(tensor.numel() for tensor in tensors)
