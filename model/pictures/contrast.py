"""Which stored values a grey picture is shown in: the window that its header gives.

What the standard calls a VOI LUT; a `Window` is here a stretch of a file.

Source:
    DICOM PS3.3 C.11.1 (modality LUT: the rescale) and C.11.2 (VOI LUT: the window).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTRAST = ("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept")
"""Keywords of what tells the window, in the order in which `read_contrast` takes their values."""

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_LARGEST = 1e15

_WHOLE_RANGE_STEPS = 2
"""Steps of grey that a window over the whole range may be off: of 8 bits writers give it as 127/254
(Philips), 127.5/255 or 128/256, and only the last one is exact under LINEAR."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A window over rescaled values.

    Attributes:
        center: WindowCenter, the first of several.
        width: WindowWidth, the first of several.
        function: VOILUTFunction.
        slope: RescaleSlope.
        intercept: RescaleIntercept.
    """

    center: float
    width: float
    function: str
    slope: float
    intercept: float

    def is_whole(self, lowest: int, bits: int) -> bool:
        """Whether it shows the whole range of stored values, by which writers mean no window.

        Args:
            lowest: the least of them.
            bits: of each.
        """
        greys = self.show(lowest + np.arange(1 << bits))
        straight = np.arange(1 << bits) * (255 / ((1 << bits) - 1))
        return bool(np.abs(greys - straight).max() <= _WHOLE_RANGE_STEPS)

    def show(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn stored values into greys, 0 below the window and 255 above it.

        Source:
            DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
        """
        with np.errstate(over="ignore"):
            value = stored * self.slope + self.intercept
            if self.function == "SIGMOID":
                share = 1 / (1 + np.exp(-4 * (value - self.center) / self.width))
            elif self.function == "LINEAR_EXACT":
                share = (value - self.center) / self.width + 0.5
            else:
                share = (value - (self.center - 0.5)) / (self.width - 1) + 0.5
        return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def read_contrast(declared: Iterable[bytes]) -> Contrast | None:
    """Read a header's first window; None where it has none, or one that nothing can be shown in.

    Args:
        declared: the values of CONTRAST as the file holds them, empty where absent.
    """
    center, width, function, slope, intercept = (
        value.decode("latin-1").strip(" \0").split("\\")[0].strip() for value in declared
    )
    function = function or "LINEAR"
    try:
        numbers = [float(text) for text in (center, width, slope or "1", intercept or "0")]
    except ValueError:
        return None
    found = Contrast(numbers[0], numbers[1], function, numbers[2], numbers[3])
    narrowest = 1 if function == "LINEAR" else 0
    is_sound = all(abs(number) < _LARGEST for number in numbers) and found.width > narrowest
    return found if is_sound and function in _FUNCTIONS else None
