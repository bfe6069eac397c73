"""What one session's frames leave behind in ``gdkvm-base``: a fixed number of bytes, for ever."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from model.base.config import KEY_WIDTH, QUERIES, STRIDE, VALUE_WIDTH
from model.errors import StateError
from model.words import counted

STATE_NAMES = (
    "memory_BNKV",
    "objects_BNQC",
    "sensory_BNCHW",
    "pixels_BCHW",
    "masks_BNHW",
    "started_B",
)


def state_shapes(
    batch: int, structures: int, height_px: int, width_px: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a state, by name.

    Raises:
        StateError: a side that is not a positive multiple of 16, or nothing to segment.
    """
    if min(height_px, width_px) < STRIDE or height_px % STRIDE or width_px % STRIDE:
        raise StateError(f"sides must be multiples of {STRIDE}, got {height_px} x {width_px}")
    if batch < 1 or structures < 1:
        raise StateError(f"wanted at least one session and structure, got {batch}, {structures}")
    grid = (height_px // STRIDE, width_px // STRIDE)
    return {
        "memory_BNKV": (batch, structures, KEY_WIDTH, VALUE_WIDTH),
        "objects_BNQC": (batch, structures, QUERIES, VALUE_WIDTH + 1),
        "sensory_BNCHW": (batch, structures, VALUE_WIDTH, *grid),
        "pixels_BCHW": (batch, VALUE_WIDTH, *grid),
        "masks_BNHW": (batch, structures, height_px, width_px),
        "started_B": (batch,),
    }


@dataclass(frozen=True, slots=True)
class BaseState:
    """The state between two frames; all zeros before the first.

    Attributes:
        memory_BNKV: key-value memory.
        objects_BNQC: running sum of object summaries, the area in the last channel.
        sensory_BNCHW: gated sensory map on the stride-16 grid.
        pixels_BCHW: pixel features of the frame before, which the next value is encoded with.
        masks_BNHW: soft masks of the frame before, in [0, 1], at full size.
        started_B: 0 before a session's first frame, 1 after it.
    """

    memory_BNKV: Tensor
    objects_BNQC: Tensor
    sensory_BNCHW: Tensor
    pixels_BCHW: Tensor
    masks_BNHW: Tensor
    started_B: Tensor

    @classmethod
    def zeros(
        cls, batch: int, structures: int, height_px: int, width_px: int, like: Tensor
    ) -> "BaseState":
        """The state before the first frame.

        Args:
            batch: sessions side by side.
            structures: foreground structures; 1 in all published work.
            height_px: rows of the network input, a multiple of 16.
            width_px: columns of the network input, a multiple of 16.
            like: any tensor of the network, for dtype and device.

        Raises:
            StateError: sides or counts that cannot be.
        """
        shapes = state_shapes(batch, structures, height_px, width_px)
        return cls(**{name: like.new_zeros(shape) for name, shape in shapes.items()})

    def tensors(self) -> Iterator[Tensor]:
        """The tensors in the order of ``STATE_NAMES``."""
        return (getattr(self, field.name) for field in fields(self))

    @property
    def nbytes(self) -> int:
        """Bytes that a session carries from frame to frame."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def is_start(self, shape_of: Tensor) -> Tensor:
        """Which sessions see their first frame, bool, shaped to broadcast against ``shape_of``."""
        return (self.started_B == 0).view(-1, *[1] * (shape_of.dim() - 1))

    def check_image(self, image_BCHW: Tensor) -> None:
        """Refuse a frame of another batch or size than this state.

        Raises:
            StateError: batch, channels or sides differ.
        """
        batch, _, height_px, width_px = self.masks_BNHW.shape
        if image_BCHW.shape != torch.Size((batch, 1, height_px, width_px)):
            raise StateError(
                f"the state is of {counted(batch, 'session')} of 1 x {height_px} x {width_px}, "
                f"the image is {' x '.join(map(str, image_BCHW.shape))}"
            )
