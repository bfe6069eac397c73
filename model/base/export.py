"""The step of ``gdkvm-base`` as an ONNX graph with the state as inputs and outputs."""

from pathlib import Path

import torch
from torch import Tensor, nn

from model.base.network import BaseNetwork
from model.base.state import STATE_NAMES, BaseState

OPSET = 18
IMAGE_NAME = "image_BCHW"
LOGITS_NAME = "logits_BNHW"
INPUT_NAMES = (IMAGE_NAME, *STATE_NAMES)
OUTPUT_NAMES = (LOGITS_NAME, *(f"next_{name}" for name in STATE_NAMES))


class FlatStep(nn.Module):
    """``BaseNetwork.step`` with the state as plain tensors, in the order of ``STATE_NAMES``."""

    def __init__(self, network: BaseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BCHW: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Log-odds, then the next state."""
        output, after = self.network.step(image_BCHW, BaseState(*state))
        return (output.logits_BNHW, *after.tensors())


def export_step(
    network: BaseNetwork,
    path: Path,
    size_px: tuple[int, int],
    structures: int = 1,
    batch: int = 1,
) -> Path:
    """Write the step for one fixed size.

    The graph's inputs are ``INPUT_NAMES``, its outputs ``OUTPUT_NAMES``: the masks are the output
    ``next_masks_BNHW``. Zeros for the state start a session.

    Args:
        network: in evaluation mode.
        path: the file to write.
        size_px: rows and columns of the network input, multiples of 16.
        structures: foreground structures.
        batch: sessions side by side.

    Returns:
        The path.

    Raises:
        StateError: a size that cannot be.
    """
    state = network.initial_state(batch, *size_px, structures)
    image_BCHW = state.masks_BNHW.new_zeros(batch, 1, *size_px)
    with torch.no_grad():
        program = torch.onnx.export(
            FlatStep(network).eval(),
            (image_BCHW, *state.tensors()),
            input_names=INPUT_NAMES,
            output_names=OUTPUT_NAMES,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)
    return path
