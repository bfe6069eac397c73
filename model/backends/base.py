"""One step behind one protocol."""

from collections.abc import Callable
from dataclasses import dataclass
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

    @property
    def name(self) -> str:
        """Of the runtime."""

    @property
    def spec(self) -> StateSpec:
        """Names and shapes of the state."""

    def step(
        self, image_11HW: NDArray[np.float32], state: MemoryState
    ) -> tuple[NDArray[np.float32], float, MemoryState]:
        """Run one frame.

        Args:
            image_11HW: grey values in [0, 1].
            state: left alone, save one that is held on a device, which the step uses up.

        Returns:
            probabilities_NHW in [0, 1], presence in [0, 1], and the next state.
        """


Step = tuple[NDArray[np.float32], float, MemoryState]
"""What a step answers: probabilities_NHW, presence, and the next state."""

Run = Callable[[Callable[[], Step]], Step]


@dataclass(frozen=True, slots=True)
class Detour:
    """A backend whose steps somebody else runs, such as a queue.

    Attributes:
        run: calls what it is given, once, and answers with its answer.
    """

    backend: Backend
    run: Run

    @property
    def name(self) -> str:
        """The backend's own."""
        return self.backend.name

    @property
    def spec(self) -> StateSpec:
        """The backend's own."""
        return self.backend.spec

    def step(self, image_11HW: NDArray[np.float32], state: MemoryState) -> Step:
        """See ``Backend.step``."""
        return self.run(lambda: self.backend.step(image_11HW, state))
