"""Sessions' states in reserved memory of a device, read and written there by every run.

A session has a slot from its first frame until nobody holds its state any more. A run gathers the
slots of its sessions, steps, and scatters what came out into the same slots; on a GPU that is one
recorded graph for every number of rows. Frames and answers are all that crosses the bus.

A run whose rows are not all taken fills up with spare slots, which are zero before and after. A
state that has no slot, because all are taken, passes through a spare one.
"""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backends.base import Step
from model.errors import StateError
from model.state import MemoryState, StateSpec

WARM_UP_RUNS = 3
"""CUDA wants some before a capture; they run on spare slots and nobody keeps their answer."""

Row = tuple[NDArray[np.float32], MemoryState]
"""image_11HW and state of one session."""

StepRows = Callable[..., Sequence[Tensor]]
"""image_B1HW and the states in; probabilities_BNHW, presence_B and the next states out."""


class Place:
    """A slot in use; it is given back when nobody holds this any more.

    Attributes:
        turn: runs that wrote it.
    """

    def __init__(self, slots: "Slots", number: int) -> None:
        self.slots = slots
        self.number = number
        self.turn = 0
        weakref.finalize(self, slots.give_back, number).atexit = False


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What a run left in a slot; see ``model.state.Held``."""

    place: Place
    turn: int
    is_finite: bool

    def fetch(self) -> tuple[NDArray[np.float32], ...]:
        """Copy it here.

        Raises:
            StateError: a later frame has overwritten it.
        """
        return self.place.slots.read(self)

    def check(self) -> None:
        """Refuse a state that is gone.

        Raises:
            StateError: a later frame has overwritten it.
        """
        if self.turn != self.place.turn:
            raise StateError("a later frame has overwritten this state; only the newest is kept")


class Slots:
    """Runs a step for several sessions at once, their states in place.

    Args:
        step: what is run.
        spec: names and shapes of one session's state.
        side_px: of the square input.
        count: sessions that can have a slot.
        sizes: numbers of rows that a run may have; the smallest that holds its sessions is taken.
            With one size alone, neighbours change no bit of an answer.
        device: where it runs.
        uses_graph: record a run of every size once and replay it; on a GPU only.
    """

    def __init__(
        self,
        step: StepRows,
        spec: StateSpec,
        side_px: int,
        *,
        count: int,
        sizes: Sequence[int],
        device: torch.device,
        uses_graph: bool,
    ) -> None:
        self._step = step
        self._spec = spec
        self._sizes = sorted(set(sizes))
        self.rows = self._sizes[-1]
        self._device = device
        self._is_cuda = device.type == "cuda"
        self._spare = range(count, count + self.rows)
        self._free = list(reversed(range(count)))
        self._returned: deque[int] = deque()
        self._lock = Lock()
        with torch.inference_mode():
            total = count + self.rows
            self._pools = [torch.zeros((total, *s[1:]), device=device) for s in spec.shapes]
            self._images = torch.zeros((self.rows, 1, side_px, side_px), device=device)
            self._numbers = torch.zeros(self.rows, dtype=torch.int64, device=device)
            self._graphs = self._record() if self._is_cuda and uses_graph else {}

    @property
    def bytes_each(self) -> int:
        """Memory of one slot."""
        return sum(pool[0].nbytes for pool in self._pools)

    def run(self, rows: Sequence[Row]) -> list[Step]:
        """Step one frame of each of up to ``rows`` sessions.

        Args:
            rows: image_11HW and state of each; a state that is in a slot is used up by it.

        Raises:
            StateError: a state that was used up before; nothing was run.
        """
        with self._lock, torch.inference_mode():
            self._sweep()
            size = next(size for size in self._sizes if size >= len(rows))
            places = self._seat(rows)
            seated = [
                spare if place is None else place.number
                for spare, place in zip(self._spare, places, strict=False)
            ]
            numbers = [*seated, *self._spare[len(rows) : size]]
            try:
                self._fill(rows, numbers)
                for place in filter(None, places):
                    place.turn += 1
                answers = self._download(self._replay(size))
                states = [
                    self._leave(place, number, bool(is_finite))
                    for place, number, is_finite in zip(places, seated, answers[2], strict=False)
                ]
            finally:
                self._images[:size].zero_()
                if None in places or len(rows) < size:
                    self._clear(self._spare)
        probabilities_BNHW, presence_B = answers[:2]
        return [
            (probabilities_BNHW[row], float(presence_B[row]), state)
            for row, state in enumerate(states)
        ]

    def read(self, held: Held) -> tuple[NDArray[np.float32], ...]:
        """See ``Held.fetch``."""
        with self._lock, torch.inference_mode():
            held.check()
            return self._copy(held.place.number)

    def give_back(self, number: int) -> None:
        """Zero a slot and let another session have it; never waits, since a collector calls it."""
        self._returned.append(number)
        if self._lock.acquire(blocking=False):
            try:
                with torch.inference_mode():
                    self._sweep()
            finally:
                self._lock.release()

    def _sweep(self) -> None:
        """Zero and free what was given back."""
        while self._returned:
            number = self._returned.popleft()
            self._clear(range(number, number + 1))
            self._free.append(number)

    def _clear(self, numbers: range) -> None:
        for pool in self._pools:
            pool[numbers.start : numbers.stop].zero_()

    def _copy(self, number: int) -> tuple[NDArray[np.float32], ...]:
        return tuple(pool[number : number + 1].cpu().numpy().copy() for pool in self._pools)

    def _seat(self, rows: Sequence[Row]) -> list[Place | None]:
        """Find every session's slot, a new one where it has none; None where all are taken."""
        places: list[Place | None] = []
        for row, (_, state) in enumerate(rows):
            held = state.held
            if isinstance(held, Held) and held.place.slots is self:
                held.check()
                places.append(held.place)
                continue
            place = Place(self, self._free.pop()) if self._free else None
            number = self._spare[row] if place is None else place.number
            for pool, array in zip(self._pools, state.arrays, strict=True):
                pool[number : number + 1].copy_(torch.from_numpy(array))
            places.append(place)
        return places

    def _fill(self, rows: Sequence[Row], numbers: Sequence[int]) -> None:
        """Bring frames and slot numbers to the device."""
        size = len(numbers)
        staged = torch.empty(self._images[:size].shape, pin_memory=self._is_cuda)
        pixels_B1HW = staged.numpy()
        for row, (image_11HW, _) in enumerate(rows):
            pixels_B1HW[row] = image_11HW[0]
        pixels_B1HW[len(rows) :] = 0.0
        self._images[:size].copy_(staged, non_blocking=True)
        there = torch.tensor(numbers, pin_memory=self._is_cuda)
        self._numbers[:size].copy_(there, non_blocking=True)

    def _replay(self, size: int) -> Sequence[Tensor]:
        if size not in self._graphs:
            return self._advance(size)
        graph, outputs = self._graphs[size]
        graph.replay()
        return outputs

    def _advance(self, size: int) -> Sequence[Tensor]:
        """Gather, step, scatter.

        Returns:
            probabilities_BNHW, presence_B, and whether each next state is finite.
        """
        number_B = self._numbers[:size]
        before = [pool.index_select(0, number_B) for pool in self._pools]
        probabilities_BNHW, presence_B, *after = self._step(self._images[:size], *before)
        is_finite_B = torch.ones_like(number_B, dtype=torch.bool)
        for pool, part in zip(self._pools, after, strict=True):
            pool.index_copy_(0, number_B, part.to(pool.dtype))
            is_finite_B = is_finite_B & part.reshape(size, -1).isfinite().all(dim=1)
        return probabilities_BNHW.float(), presence_B.float(), is_finite_B

    def _download(self, outputs: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        """Answers in memory of their own; pinned memory is taken from what earlier runs let go."""
        if not self._is_cuda:
            return [output.numpy() for output in outputs]
        answers = []
        for output in outputs:
            answer = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
            answers.append(answer.copy_(output, non_blocking=True))
        torch.cuda.current_stream(self._device).synchronize()
        return [answer.numpy() for answer in answers]

    def _leave(self, place: Place | None, number: int, is_finite: bool) -> MemoryState:
        if place is None:
            return MemoryState(self._spec, self._copy(number))
        return MemoryState(self._spec, held=Held(place, place.turn, is_finite))

    def _record(self) -> "dict[int, tuple[torch.cuda.CUDAGraph, Sequence[Tensor]]]":
        """Record a run of every size, the largest first, on spare slots; see WARM_UP_RUNS."""
        self._numbers.copy_(torch.tensor(self._spare))
        memory = torch.cuda.graph_pool_handle()
        graphs = {}
        for size in reversed(self._sizes):
            aside = torch.cuda.Stream(self._device)
            aside.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP_RUNS):
                    self._advance(size)
            torch.cuda.current_stream(self._device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=memory, capture_error_mode="thread_local"):
                outputs = self._advance(size)
            graphs[size] = graph, outputs
        self._clear(self._spare)
        torch.cuda.synchronize(self._device)
        return graphs
