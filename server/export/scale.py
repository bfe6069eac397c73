"""A clip's image at the size in which it is shown, each pixel as tall and wide as it is."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scale:
    """From the pixels of a clip to those of a picture of it.

    Attributes:
        width: of the picture, in pixels.
        height: likewise.
        x: pixels of the picture for one of the clip, along a row.
        y: likewise along a column.
    """

    width: int
    height: int
    x: float
    y: float

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        spacing_mm: tuple[float, float] | None,
        least_px: float,
        most_px: float,
    ) -> "Scale":
        """Bring the longer side of a picture into a range.

        Args:
            size: rows and columns of the clip.
            spacing_mm: row and column spacing; pixels are square where it is None.
            least_px: of the longer side.
            most_px: likewise.
        """
        rows, columns = size
        tallness = spacing_mm[0] / spacing_mm[1] if spacing_mm else 1.0
        longer = max(rows * tallness, columns)
        scale = min(max(longer, least_px), most_px) / longer
        width, height = max(1, round(columns * scale)), max(1, round(rows * tallness * scale))
        return cls(width, height, width / columns, height / rows)

    def picture(self, pixels_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resample an image of the clip."""
        way = cv2.INTER_AREA if max(self.x, self.y) < 1 else cv2.INTER_CUBIC
        scaled_HW = cv2.resize(pixels_HW, (self.width, self.height), interpolation=way)
        return np.asarray(scaled_HW, np.uint8)

    def points(self, points_P2: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map (row, column) points to (x, y); pixel centres are whole numbers in both."""
        return (points_P2[:, ::-1].astype(np.float64) + 0.5) * (self.x, self.y) - 0.5
