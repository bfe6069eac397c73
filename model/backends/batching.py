"""Frames of different sessions in one run: whoever is ready now, and nobody is waited for."""

from collections import deque
from collections.abc import Sequence
from threading import Condition
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.backends.base import Backend, Step
from model.state import MemoryState, StateSpec

Row = tuple[NDArray[np.float32], MemoryState]
"""image_11HW and state of one session."""


class RowsBackend(Backend, Protocol):
    """A backend that runs several sessions at once, each as if it were alone."""

    @property
    def rows(self) -> int:
        """Sessions a run can take."""

    def step_rows(self, rows: Sequence[Row]) -> list[Step]:
        """What ``Backend.step`` answers, for each."""


class _Request:
    """One caller's frame, and what became of it."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.answer: Step | None = None
        self.failure: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether the caller can go."""
        return self.answer is not None or self.failure is not None


class Batching:
    """One run at a time; those who call meanwhile share the next one, first come first served.

    Of a session's frames only one may be under way at a time, which is its owner's to see to.
    """

    def __init__(self, backend: RowsBackend) -> None:
        """Share a backend."""
        self._backend = backend
        self._waiting: deque[_Request] = deque()
        self._is_running = False
        self._changed = Condition()

    @property
    def name(self) -> str:
        """The backend's own."""
        return self._backend.name

    @property
    def spec(self) -> StateSpec:
        """The backend's own."""
        return self._backend.spec

    def step(self, image_11HW: NDArray[np.float32], state: MemoryState) -> Step:
        """See ``Backend.step``; whoever finds no run under way does the next one for all."""
        request = _Request((image_11HW, state))
        with self._changed:
            self._waiting.append(request)
        while not request.is_done:
            batch = self._begin(request)
            if batch:
                self._run(batch)
        if request.failure is not None:
            raise request.failure
        assert request.answer is not None
        return request.answer

    def _begin(self, request: _Request) -> list[_Request]:
        """Wait for an answer, or for the right to run; returns what to run."""
        with self._changed:
            self._changed.wait_for(lambda: request.is_done or not self._is_running)
            if request.is_done:
                return []
            self._is_running = True
            count = min(self._backend.rows, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]

    def _run(self, batch: list[_Request]) -> None:
        """Run for all of a batch; what fails fails for each of them."""
        try:
            answers = self._backend.step_rows([each.row for each in batch])
            for each, answer in zip(batch, answers, strict=True):
                each.answer = answer
        except Exception as error:  # noqa: BLE001 (raised in every caller)
            for each in batch:
                each.failure = error
        finally:
            with self._changed:
                self._is_running = False
                self._changed.notify_all()
