"""The networks that ``benchmarks/gpu.py`` times, each as its backend on a GPU runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.backends.slots import Slots
from model.backends.torch import STATE_NAMES as LIVE_STATE_NAMES
from model.backends.torch import make_fast
from model.base import STATE_NAMES, AlphaRule, BaseConfig, BaseNetwork, BaseState
from model.network import LiveNetwork, NetworkState
from model.state import StateSpec
from model.weights import load_info, parameters_of

Precision = Literal["f32", "bf16"]


@dataclass(frozen=True, slots=True)
class Model:
    """One network and what its backend needs.

    Attributes:
        make: builds it, the same every time.
        step: image_B1HW and states in; probabilities_BNHW, presence_B and states out.
    """

    name: str
    side_px: int
    spec: StateSpec
    make: Callable[[], nn.Module]
    step: Callable[..., Sequence[Tensor]]


def live_model() -> Model:
    """The shipped network."""
    info = load_info()

    def make() -> nn.Module:
        from safetensors.torch import load_file

        network = LiveNetwork(info.config)
        network.load_state_dict(load_file(parameters_of(info)))
        return network.eval()

    def step(network: LiveNetwork, image_B1HW: Tensor, *state: Tensor) -> Sequence[Tensor]:
        output, after = network.step(image_B1HW, NetworkState(*state))
        return output.probabilities_BNHW, torch.sigmoid(output.presence_B.float()), *after

    shapes = tuple(tuple(part.shape) for part in LiveNetwork(info.config).initial_state(1))
    spec = StateSpec(LIVE_STATE_NAMES, shapes)
    return Model("gdkvm-live", info.network_size, spec, make, step)


def base_model(side_px: int) -> Model:
    """The published network, with random weights."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return BaseNetwork(BaseConfig(alpha_rule=AlphaRule.RERELEASE)).eval()

    def step(network: BaseNetwork, image_B1HW: Tensor, *state: Tensor) -> Sequence[Tensor]:
        output, after = network.step(image_B1HW, BaseState(*state))
        return output.masks_BNHW, output.masks_BNHW.amax(dim=(1, 2, 3)), *after.tensors()

    network = BaseNetwork(BaseConfig(alpha_rule=AlphaRule.RERELEASE))
    state = network.initial_state(1, side_px, side_px)
    spec = StateSpec(STATE_NAMES, tuple(tuple(part.shape) for part in state.tensors()))
    return Model("gdkvm-base", side_px, spec, make, step)


def step_of(
    model: Model, device: torch.device, precision: Precision, *, is_fast: bool
) -> Callable[..., Sequence[Tensor]]:
    """A model's step on a device at a precision; ``is_fast`` as the backend prepares it."""
    network = model.make().to(device)
    if is_fast and device.type == "cuda":
        make_fast(network, precision)

    def step(image_B1HW: Tensor, *state: Tensor) -> Sequence[Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return model.step(network, image_B1HW, *state)

    return step


def slots_of(
    model: Model,
    device: torch.device,
    precision: Precision,
    sizes: Sequence[int],
    count: int,
    *,
    uses_graph: bool = True,
) -> Slots:
    """A model's backend."""
    step = step_of(model, device, precision, is_fast=True)
    return Slots(
        step,
        model.spec,
        model.side_px,
        count=count,
        sizes=sizes,
        device=device,
        uses_graph=uses_graph,
    )


def frames_of(model: Model, count: int) -> list[NDArray[np.float32]]:
    """Some frames, all different."""
    rng = np.random.default_rng(0)
    return [rng.random((1, 1, model.side_px, model.side_px), np.float32) for _ in range(count)]
