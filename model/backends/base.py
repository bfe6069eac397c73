"""One step behind one protocol."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.state import MemoryState, StateSpec

IMAGE = "image"
PROBABILITIES = "probabilities"
PRESENCE = "presence"
STATE_OUT = "next_"
"""A step's state output is named ``next_`` + the name of the input it replaces."""


class Backend(Protocol):
    """Runs the exported step; safe to call from several threads at once."""

    name: str
    spec: StateSpec

    def step(
        self, image_11HW: NDArray[np.float32], state: MemoryState
    ) -> tuple[NDArray[np.float32], float, MemoryState]:
        """Run one frame.

        Args:
            image_11HW: grey values in [0, 1].
            state: left alone.

        Returns:
            probabilities_NHW in [0, 1], presence in [0, 1], and the next state.
        """
