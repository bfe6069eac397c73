"""The step in torch: the reference on a CPU; on a GPU with CUDA graphs and several sessions a run.

A run works on a fixed number of rows, one a session, or on the smallest of some numbers that holds
its sessions. Where states are between two runs, see ``model.backends.slots``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.backends.base import Step
from model.backends.slots import Slots
from model.config import ModelConfig
from model.errors import WeightsError
from model.network import LiveNetwork, NetworkState
from model.state import MemoryState, StateSpec

Precision = Literal["f32", "bf16"]

STATE_NAMES = ("memory", "sensory")


def has_cuda() -> bool:
    """Whether torch finds a GPU."""
    return torch.cuda.is_available()


def make_fast(network: nn.Module, precision: Precision) -> None:
    """Change a network on a GPU so that its convolutions run fast, and the same ones every time.

    float32 is float32 from here on in the whole process: TensorFloat-32 would round convolutions
    to ten bits.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            match list(child.children()):
                case [nn.Conv2d() as convolution, nn.BatchNorm2d() as norm]:
                    setattr(module, name, fuse_conv_bn_eval(convolution, norm))
    if precision == "bf16":
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                weight = module.weight.data
                module.weight.data = weight.to(torch.bfloat16, memory_format=torch.channels_last)


class TorchBackend:
    """Runs a fixed number of rows at a time.

    Args:
        parameters: the network's parameters (safetensors).
        config: its shape.
        rows: sessions a run can take; what the other rows hold changes no bit of a row's answer.
            Of several numbers the smallest that holds a run's sessions is taken: a smaller run is
            sooner done, but the last bits of an answer depend on its size.
        slots: sessions whose state stays on the device; others' goes there and back every frame.
        threads: processor threads, where the network runs on the processor.
        device: ``cpu`` or ``cuda``.
        precision: of convolutions and products; states are kept in float32 in any case.
        uses_graph: record the run once and replay it; on a GPU only.

    Raises:
        WeightsError: not the parameters of such a network.
    """

    name = "torch"

    def __init__(  # noqa: PLR0913 (all but two have a default)
        self,
        parameters: Path,
        config: ModelConfig,
        *,
        rows: int | Sequence[int] = 1,
        slots: int = 0,
        threads: int = 1,
        device: str = "cpu",
        precision: Precision = "f32",
        uses_graph: bool = True,
    ) -> None:
        sizes = (rows,) if isinstance(rows, int) else tuple(rows)
        self.rows = max(sizes)
        self._threads = threads
        self._precision = precision
        self._device = torch.device(device)
        network = _load(parameters, config)
        self.spec = StateSpec(
            STATE_NAMES, tuple(tuple(part.shape) for part in network.initial_state(1))
        )
        self._network = network.to(self._device)
        if self._device.type == "cuda":
            make_fast(self._network, precision)
        self._slots = Slots(
            self._step,
            self.spec,
            config.network_size,
            count=slots,
            sizes=sizes,
            device=self._device,
            uses_graph=uses_graph,
        )

    def step(self, image_11HW: NDArray[np.float32], state: MemoryState) -> Step:
        """See ``Backend.step``."""
        return self.step_rows([(image_11HW, state)])[0]

    def step_rows(self, rows: Sequence[tuple[NDArray[np.float32], MemoryState]]) -> list[Step]:
        """Run one frame of each of up to ``self.rows`` sessions.

        Args:
            rows: image_11HW and state of each session; one that was answered by a backend with
                slots is used up.

        Returns:
            What ``Backend.step`` answers, for each.
        """
        if self._device.type == "cpu":
            # A calling thread has a number of its own, and the number shows in the last bits.
            torch.set_num_threads(self._threads)
        return self._slots.run(rows)

    def _step(self, image_B1HW: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        is_reduced = self._precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_reduced):
            output, after = self._network.step(image_B1HW, NetworkState(*state))
        return output.probabilities_BNHW, torch.sigmoid(output.presence_B.float()), *after


def _load(parameters: Path, config: ModelConfig) -> LiveNetwork:
    network = LiveNetwork(config)
    try:
        network.load_state_dict(load_file(parameters))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{parameters.name} does not fit the network: {error}") from error
    return network.eval()
