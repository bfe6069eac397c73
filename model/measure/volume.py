"""Volumes by the method of disks."""

from model.measure.reading import Ventricle


def biplane_volume_ml(a4c: Ventricle, a2c: Ventricle) -> float | None:
    """Volume by biplane disks from two views at the same instant of the beat.

    Returns:
        Millilitres, None unless both views are calibrated.
    """
    return None
