"""OpenIGTLink as the bridge needs it: a connection, and IMAGE messages as frames.

Source:
    OpenIGTLink protocol version 3, messages packed and unpacked by pyigtl.
"""

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pyigtl.messages import ImageMessage, MessageBase

logger = logging.getLogger(__name__)

LABELS_DEVICE = "gdkvm_labels"

HEADER_BYTES = MessageBase.IGTL_HEADER_SIZE
MOST_BYTES = 256 << 20
"""Longest message that is read; a longer one is no image of an ultrasound scanner."""

CONNECT_TIMEOUT_S = 10.0

SAME_SPACING = 1e-3
"""Relative difference up to which two spacings are one; a tracked image's matrix is noisy."""

LEAST_SPACING_MM, MOST_SPACING_MM = 0.001, 10.0
"""What a server takes; see docs/protocol.md."""

Address = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One IMAGE message as a frame.

    Attributes:
        pose: of pixels in the world, 4 x 4, columns i (image columns), j (image rows), k, origin.
        world: coordinate system, ``lps`` or ``ras``.
        timestamp_s: since 1970; 0 where the sender has no clock.
    """

    size: tuple[int, int]
    codec: Literal["gray8", "rgb24"]
    payload: bytes
    spacing_mm: tuple[float, float] | None
    pose: NDArray[np.float64]
    world: str
    timestamp_s: float

    @classmethod
    def of(cls, message: ImageMessage, spacing_mm: tuple[float, float] | None) -> Self:
        """Take over an image.

        Args:
            message: as received.
            spacing_mm: in place of what the message's matrix says.

        Raises:
            ValueError: it is no picture of 8 bits, grey or RGB.
        """
        image = message.image if message.image.ndim == 4 else message.image[..., None]
        slices, rows, columns, components = image.shape
        if slices != 1 or image.dtype != np.uint8 or components not in (1, 3):
            shape = f"{columns}x{rows}x{slices}, {components} x {image.dtype}"
            raise ValueError(f"only single pictures of 8 bits, grey or RGB, are taken, got {shape}")
        return cls(
            size=(rows, columns),
            codec="gray8" if components == 1 else "rgb24",
            payload=image.tobytes(),
            spacing_mm=spacing_mm or spacing_of(message.ijk_to_world_matrix),
            pose=message.ijk_to_world_matrix,
            world=message.world_coordinate_system,
            timestamp_s=message.timestamp,
        )

    @property
    def time_us(self) -> int | None:
        """When it was acquired, None where the sender has no clock."""
        return round(1e6 * self.timestamp_s) if self.timestamp_s > 0 else None

    def continues(self, other: "Picture") -> bool:
        """Whether both may be frames of one session."""
        if (self.size, self.codec) != (other.size, other.codec):
            return False
        if self.spacing_mm is None or other.spacing_mm is None:
            return self.spacing_mm is other.spacing_mm
        return bool(np.allclose(self.spacing_mm, other.spacing_mm, rtol=SAME_SPACING, atol=0))

    def labels(self, labels_HW: NDArray[np.uint8]) -> ImageMessage:
        """A label map at the place and time of this picture."""
        return ImageMessage(
            labels_HW[None],
            ijk_to_world_matrix=self.pose,
            world_coordinate_system=self.world,
            timestamp=self.timestamp_s,
            device_name=LABELS_DEVICE,
        )


def spacing_of(pose: NDArray[np.float64]) -> tuple[float, float] | None:
    """Size of a pixel.

    Args:
        pose: of an IMAGE message: its columns are one step along image columns, rows, slices.

    Returns:
        Along rows and columns in mm; None for the identity, which senders without a calibration
        send, and for what no pixel of an echocardiogram has.
    """
    if np.allclose(pose[:3, :2], np.eye(3)[:, :2]):
        return None
    row_mm, column_mm = (float(np.linalg.norm(pose[:3, axis])) for axis in (1, 0))
    if not all(LEAST_SPACING_MM <= mm <= MOST_SPACING_MM for mm in (row_mm, column_mm)):
        return None
    return row_mm, column_mm


class Wire:
    """One OpenIGTLink connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> MessageBase | None:
        """Wait for one message; None for one that cannot be read, after which others can.

        Raises:
            OSError: the connection broke, or what comes is no OpenIGTLink.
            EOFError: it was closed.
        """
        try:
            head = MessageBase.parse_header(await self._reader.readexactly(HEADER_BYTES))
        except UnicodeDecodeError as error:
            raise OSError("what comes is no OpenIGTLink") from error
        if head["body_size"] > MOST_BYTES:
            raise OSError(f"a message of {head['body_size']} bytes")
        body = await self._reader.readexactly(head["body_size"])
        message = MessageBase.create_message(head["message_type"])
        try:
            if message is not None:
                message.unpack(head, body)
        except (KeyError, ValueError, TypeError, NotImplementedError, struct.error) as error:
            logger.warning("a message of %s is passed over: %r", head["device_name"], error)
            return None
        return message

    async def write(self, message: MessageBase) -> None:
        """Send one message; one for whom nobody listens any more is lost."""
        with contextlib.suppress(OSError):
            self._writer.write(message.pack())
            await self._writer.drain()

    async def ignore(self) -> None:
        """Read whatever comes, until the connection ends.

        Raises:
            OSError: it broke.
            EOFError: it was closed.
        """
        while True:
            await self.read()


@contextlib.asynccontextmanager
async def open_wire(address: Address) -> AsyncIterator[Wire]:
    """Connect to an OpenIGTLink server.

    Raises:
        OSError: nobody is there.
    """
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(*address)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
