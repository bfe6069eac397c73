"""A frame's label map as hello wanted it written."""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from model import STRUCTURES, Reading
from server.protocol import ContourMask, MaskEncoding, MaskMessage, PngMask, RleMask


class Runs:
    """A label map as runs of equal labels; areas and run lengths follow from it."""

    def __init__(self, labels_HW: NDArray[np.uint8]) -> None:
        flat = labels_HW.ravel()
        self.size = labels_HW.shape[0], labels_HW.shape[1]
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        self._starts = np.concatenate([[0], changes])
        self._ends = np.concatenate([changes, [flat.size]])
        self._labels = flat[self._starts]
        self._pixels = flat.size

    def areas_px(self) -> dict[str, float]:
        """Pixels of every structure."""
        lengths = (self._ends - self._starts).astype(np.float64)
        sums = np.bincount(self._labels, lengths, len(STRUCTURES) + 1)
        return dict(zip(STRUCTURES, sums[1:].tolist(), strict=True))

    def counts(self, label: int) -> list[int]:
        """Lengths of the runs of background and one label in turn, background first."""
        (chosen,) = (self._labels == label).nonzero()
        edges = np.empty(2 * len(chosen) + 2, np.intp)
        edges[0], edges[-1] = 0, self._pixels
        edges[1:-1:2], edges[2:-1:2] = self._starts[chosen], self._ends[chosen]
        lengths: list[int] = (edges[1:] - edges[:-1]).tolist()
        return lengths[:-1] if lengths[-1] == 0 else lengths


def encode_mask(
    encoding: MaskEncoding, labels_HW: NDArray[np.uint8], runs: Runs, reading: Reading
) -> MaskMessage | None:
    """Write one frame's mask.

    Args:
        encoding: what hello wanted.
        labels_HW: 0 background, then 1 + the index in STRUCTURES, on the source grid.
        runs: of the same map.
        reading: holds the outlines.

    Returns:
        The message; None where none is wanted.
    """
    match encoding:
        case "rle":
            counts = {name: runs.counts(index + 1) for index, name in enumerate(STRUCTURES)}
            return RleMask.model_construct(size=runs.size, counts=counts)
        case "png":
            png = cv2.imencode(".png", labels_HW)[1].tobytes()
            return PngMask.model_construct(
                size=runs.size, png=base64.b64encode(png).decode("ascii")
            )
        case "contour":
            contours = {
                name: [line_P2.astype(np.float64).round(1).tolist() for line_P2 in lines]
                for name, lines in reading.contours.items()
            }
            return ContourMask.model_construct(size=runs.size, contours=contours)
        case "none":
            return None
