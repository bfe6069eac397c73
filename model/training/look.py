"""How another machine would display an image."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


def random_look(rng: Generator) -> tuple[float, float, float]:
    """Gamma, gain and offset of a machine's display, drawn once a clip."""
    gain = rng.uniform(0.35, 1.0) if rng.random() < 0.3 else rng.uniform(0.8, 1.25)
    return float(np.exp(rng.normal(0.0, 0.25))), float(gain), float(rng.normal(0.0, 0.02))


def apply_look(
    image_HW: NDArray[np.float32], look: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Display an image of grey values in [0, 1] with another gamma, gain and offset."""
    gamma, gain, offset = look
    lit = image_HW > 0
    return (gain * image_HW**gamma + offset * lit).clip(0.0, 1.0)
