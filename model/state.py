"""MemoryState: what one session's frames leave behind, as plain arrays that outlive a process."""

import hashlib
import struct
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.errors import StateError

FORMAT_VERSION = 1
_HEADER = struct.Struct("<4sH32s32s")
_MAGIC = b"GDKS"


@dataclass(frozen=True, slots=True)
class StateSpec:
    """Names and shapes of a model's state for one session, in the order of the step's inputs."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def entries(self) -> int:
        """Numbers in one session's state."""
        return sum(int(np.prod(shape)) for shape in self.shapes)


class Held(Protocol):
    """Arrays that are kept where they are used, such as a GPU's memory."""

    @property
    def is_finite(self) -> bool:
        """Whether every number is finite."""

    def fetch(self) -> tuple[NDArray[np.float32], ...]:
        """Copy them here.

        Raises:
            StateError: they are gone.
        """


class MemoryState:
    """One session's recurrent state; it never changes."""

    __slots__ = ("_arrays", "held", "spec")

    def __init__(
        self,
        spec: StateSpec,
        arrays: tuple[NDArray[np.float32], ...] | None = None,
        *,
        held: Held | None = None,
    ) -> None:
        """Check shapes and types once.

        Args:
            spec: names and shapes.
            arrays: float32, one an entry of ``spec``, batch axis of size 1 in front.
            held: instead of arrays, what keeps them.

        Raises:
            StateError: an array is not what the spec says.
        """
        self.spec = spec
        self.held = held
        self._arrays = arrays or ()
        if held is None:
            self._check()

    def _check(self) -> None:
        if len(self._arrays) != len(self.spec.names):
            raise StateError(f"{len(self._arrays)} arrays for {len(self.spec.names)} state names")
        for name, shape, array in zip(self.spec.names, self.spec.shapes, self._arrays, strict=True):
            if array.shape != shape or array.dtype != np.float32:
                raise StateError(
                    f"state {name!r} must be float32 {shape}, got {array.dtype} {array.shape}"
                )

    @property
    def arrays(self) -> tuple[NDArray[np.float32], ...]:
        """In the order of ``spec``, fetched from where they are held.

        Raises:
            StateError: they were held elsewhere, and are gone.
        """
        return self._arrays if self.held is None else self.held.fetch()

    @classmethod
    def zeros(cls, spec: StateSpec) -> "MemoryState":
        """The state before the first frame."""
        return cls(spec, tuple(np.zeros(shape, np.float32) for shape in spec.shapes))

    def norm(self) -> float:
        """Euclidean norm of the first array, the key-value memory; a health signal."""
        return float(np.linalg.norm(self.arrays[0]))

    def is_finite(self) -> bool:
        """Whether every number is finite."""
        if self.held is not None:
            return self.held.is_finite
        return all(bool(np.isfinite(array).all()) for array in self.arrays)

    def to_bytes(self, model_sha256: str) -> bytes:
        """Header (magic, version, model hash, checksum of the body), then the arrays."""
        body = b"".join(array.astype("<f4", copy=False).tobytes() for array in self.arrays)
        digest = hashlib.sha256(body).digest()
        return _HEADER.pack(_MAGIC, FORMAT_VERSION, bytes.fromhex(model_sha256), digest) + body

    @classmethod
    def from_bytes(cls, blob: bytes, spec: StateSpec, model_sha256: str) -> "MemoryState":
        """Read what ``to_bytes`` wrote.

        Args:
            blob: the bytes.
            spec: names and shapes of the model that is to go on.
            model_sha256: hash of that model's weights, hexadecimal.

        Raises:
            StateError: another format, model or size, or damaged bytes; says which.
        """
        if len(blob) < _HEADER.size or blob[:4] != _MAGIC:
            raise StateError("these bytes are not a saved state")
        _, version, model_digest, body_digest = _HEADER.unpack_from(blob)
        body = blob[_HEADER.size :]
        if version != FORMAT_VERSION:
            raise StateError(
                f"saved state has format {version}, this program reads {FORMAT_VERSION}"
            )
        if model_digest.hex() != model_sha256:
            raise StateError(
                f"saved state is of model {model_digest.hex()[:12]}, "
                f"this one is {model_sha256[:12]}"
            )
        if len(body) != 4 * spec.entries:
            raise StateError(
                f"saved state has {len(body)} bytes, this model's has {4 * spec.entries}"
            )
        if hashlib.sha256(body).digest() != body_digest:
            raise StateError("saved state is damaged: its checksum does not match")
        flat = np.frombuffer(body, "<f4").astype(np.float32)
        ends = np.cumsum([int(np.prod(shape)) for shape in spec.shapes])[:-1]
        parts = np.split(flat, ends)
        return cls(spec, tuple(p.reshape(s) for p, s in zip(parts, spec.shapes, strict=True)))
