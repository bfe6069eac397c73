"""From one mask to one reading."""

from model.frame import STRUCTURES, Mask
from model.measure.reading import Quality, Reading


def measure_frame(mask: Mask, spacing_mm: tuple[float, float] | None) -> Reading:
    """Measure one frame.

    Args:
        mask: what the network says of the frame.
        spacing_mm: (row, column) size of a source pixel, None where it is not calibrated.

    Returns:
        The reading; a frame that cannot be measured has no ``lv`` and a reason.
    """
    quality = Quality("fail", ("no_left_ventricle",))
    return Reading(None, {name: () for name in STRUCTURES}, quality, mask.presence)
