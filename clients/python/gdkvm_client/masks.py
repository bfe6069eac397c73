"""Masks as they come over the wire, and as numpy arrays."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdkvm_client.errors import BadAnswerError


@dataclass(frozen=True, slots=True, eq=False)
class RleMask:
    """Run lengths over all pixels, row by row, background first.

    Attributes:
        size: rows and columns of the frame as sent.
        counts: per structure the lengths of runs of background and structure in turn.
    """

    size: tuple[int, int]
    counts: Mapping[str, Sequence[int]]

    def of(self, structure: str) -> NDArray[np.bool_]:
        """Decode one structure: rows x columns, True inside."""
        counts = self.counts[structure]
        inside = np.arange(len(counts)) % 2 == 1
        return np.repeat(inside, counts).reshape(self.size)

    def labels(self, structures: Sequence[str]) -> NDArray[np.uint8]:
        """Decode all: 0 background, else 1 plus the index in ``structures`` (see Ready)."""
        labels_HW = np.zeros(self.size, np.uint8)
        for index, name in enumerate(structures):
            labels_HW[self.of(name)] = index + 1
        return labels_HW


@dataclass(frozen=True, slots=True)
class PngMask:
    """An 8-bit grey PNG: 0 background, else 1 plus the index in the structures of Ready."""

    size: tuple[int, int]
    png: bytes


@dataclass(frozen=True, slots=True, eq=False)
class ContourMask:
    """Closed outlines, P x 2 (row, column) in pixels of the frame as sent, largest first."""

    size: tuple[int, int]
    contours: Mapping[str, tuple[NDArray[np.float64], ...]]


Mask = RleMask | PngMask | ContourMask


def parse_mask(fields: Mapping[str, Any]) -> Mask:
    """Read the mask of a result.

    Raises:
        BadAnswerError: an encoding that this version does not know, or broken contents.
    """
    rows, columns = fields["size"]
    size = (int(rows), int(columns))
    match fields["encoding"]:
        case "rle":
            if any(sum(runs) != rows * columns for runs in fields["counts"].values()):
                raise BadAnswerError("run lengths do not add up to the size of the frame")
            # Not before somebody asks do they become arrays.
            return RleMask(size, fields["counts"])
        case "png":
            try:
                return PngMask(size, base64.b64decode(fields["png"], validate=True))
            except binascii.Error as error:
                raise BadAnswerError("a PNG mask is not Base64") from error
        case "contour":
            return ContourMask(
                size,
                {
                    name: tuple(np.asarray(line, np.float64).reshape(-1, 2) for line in lines)
                    for name, lines in fields["contours"].items()
                },
            )
        case other:
            raise BadAnswerError(f"masks are rle, png or contour, got {other!r}")
