"""The step in torch: the reference on a CPU; on a GPU with CUDA graphs and several sessions a run.

A run works on a fixed number of rows, one a session. All rows live in memory that is reserved
once, and is zero before the first frame and wherever a row has no session; nothing of a session
stays in it between two runs.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.backends.base import Step
from model.config import ModelConfig
from model.errors import WeightsError
from model.frame import STRUCTURES
from model.network import LiveNetwork, NetworkState
from model.state import MemoryState, StateSpec

Precision = Literal["f32", "bf16"]

STATE_NAMES = ("memory", "sensory")

WARM_UP_RUNS = 3
"""CUDA wants some before a capture; they run on rows of zeros and nobody keeps their answer."""


def has_cuda() -> bool:
    """Whether torch finds a GPU."""
    return torch.cuda.is_available()


class TorchBackend:
    """Runs a fixed number of rows at a time.

    Args:
        parameters: the network's parameters (safetensors).
        config: its shape.
        rows: sessions a run can take; what the other rows hold changes no bit of a row's answer.
        threads: processor threads, where the network runs on the processor.
        device: ``cpu`` or ``cuda``.
        precision: of convolutions and products; states are kept in float32 in any case.
        uses_graph: record the run once and replay it; on a GPU only.

    Raises:
        WeightsError: not the parameters of such a network.
    """

    name = "torch"

    def __init__(
        self,
        parameters: Path,
        config: ModelConfig,
        *,
        rows: int = 1,
        threads: int = 1,
        device: str = "cpu",
        precision: Precision = "f32",
        uses_graph: bool = True,
    ) -> None:
        self.rows = rows
        self._threads = threads
        self._precision = precision
        self._device = torch.device(device)
        self._network = _load(parameters, config).to(self._device)
        empty = self._network.initial_state(1)
        self.spec = StateSpec(STATE_NAMES, tuple(tuple(part.shape) for part in empty))
        side = config.network_size
        states = [(rows, *part.shape[1:]) for part in empty]
        is_cuda = self._device.type == "cuda"
        asked = [(rows, 1, side, side), *states]
        answered = [(rows, len(STRUCTURES), side, side), (rows,), *states]
        self._staged = [torch.zeros(shape, pin_memory=is_cuda) for shape in asked]
        self._inputs = [torch.zeros(shape, device=self._device) for shape in asked]
        self._answers = [torch.zeros(shape, pin_memory=is_cuda) for shape in answered]
        self._lock = Lock()
        with torch.inference_mode():
            self._graph = self._record() if is_cuda and uses_graph else None

    def step(self, image_11HW: NDArray[np.float32], state: MemoryState) -> Step:
        """See ``Backend.step``."""
        return self.step_rows([(image_11HW, state)])[0]

    def step_rows(self, rows: Sequence[tuple[NDArray[np.float32], MemoryState]]) -> list[Step]:
        """Run one frame of each of up to ``self.rows`` sessions.

        Args:
            rows: image_11HW and state of each session.

        Returns:
            What ``Backend.step`` answers, for each.
        """
        with self._lock, torch.inference_mode():
            # A calling thread has a number of its own, and the number shows in the last bits.
            torch.set_num_threads(self._threads)
            try:
                self._fill(rows)
                for answer, output in zip(self._answers, self._run(), strict=True):
                    answer.copy_(output, non_blocking=True)
                self._wait()
                return [self._answer(row) for row in range(len(rows))]
            finally:
                self._clear()

    def _fill(self, rows: Sequence[tuple[NDArray[np.float32], MemoryState]]) -> None:
        for row, (image_11HW, state) in enumerate(rows):
            for staged, array in zip(self._staged, (image_11HW, *state.arrays), strict=True):
                staged[row] = torch.from_numpy(array[0])
        for there, staged in zip(self._inputs, self._staged, strict=True):
            there.copy_(staged, non_blocking=True)

    def _wait(self) -> None:
        """Wait until the answers are there."""
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def _clear(self) -> None:
        """Leave nothing of a session behind."""
        for memory in (*self._staged, *self._inputs, *self._answers):
            memory.zero_()

    def _run(self) -> Sequence[Tensor]:
        if self._graph is None:
            return self._step()
        graph, outputs = self._graph
        graph.replay()
        return outputs

    def _step(self) -> tuple[Tensor, ...]:
        image_B1HW, *state = self._inputs
        is_reduced = self._precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_reduced):
            output, after = self._network.step(image_B1HW, NetworkState(*state))
        probabilities_BNHW = output.logits_BNHW.float().softmax(dim=1)[:, 1:]
        return probabilities_BNHW, torch.sigmoid(output.presence_B.float()), *after

    def _record(self) -> tuple["torch.cuda.CUDAGraph", tuple[Tensor, ...]]:
        """Record a run; see WARM_UP_RUNS."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_RUNS):
                self._step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._step()
        return graph, outputs

    def _answer(self, row: int) -> Step:
        probabilities_BNHW, presence_B, *state = (each.numpy() for each in self._answers)
        arrays = tuple(part[row : row + 1].copy() for part in state)
        return (
            probabilities_BNHW[row].copy(),
            float(presence_B[row]),
            MemoryState(self.spec, arrays),
        )


def _load(parameters: Path, config: ModelConfig) -> LiveNetwork:
    network = LiveNetwork(config)
    try:
        network.load_state_dict(load_file(parameters))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{parameters.name} does not fit the network: {error}") from error
    return network.eval()
