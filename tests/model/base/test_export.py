"""The exported step of the published network, run by another engine, against the recorded runs."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from model.base import STATE_NAMES, AlphaRule, export_step
from model.errors import StateError
from tests.model.base.conftest import GoldenNetwork, ReadCase


# PyTorch's exporter uses a name that PyTorch itself deprecated.
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")
def test_the_exported_step_reproduces_the_recorded_frames(
    golden_network: GoldenNetwork, read_case: ReadCase, tmp_path: Path
) -> None:
    network = golden_network(AlphaRule.OFFICIAL, torch.float32)
    graph = export_step(network, tmp_path / "step.onnx", (64, 64)).read_bytes()
    (tmp_path / "step.onnx").unlink()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    engine = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    case = read_case("official_a")
    state = [tensor.numpy() for tensor in network.initial_state(1, 64, 64).tensors()]
    for t, image_HW in enumerate(case.images(torch.float32).numpy()[0]):
        feed = {"image_BCHW": image_HW[None, None], **dict(zip(STATE_NAMES, state, strict=True))}
        logits_BNHW, *state = engine.run(None, feed)
        np.testing.assert_allclose(logits_BNHW[0], case.arrays["logits"][t], rtol=0, atol=1e-4)
        masks_BNHW = state[STATE_NAMES.index("masks_BNHW")]
        np.testing.assert_allclose(masks_BNHW[0], case.arrays["masks"][t], rtol=0, atol=3e-5)
    np.testing.assert_allclose(state[0][0], case.arrays["state_f7"], rtol=0, atol=5e-5)


def test_a_size_that_cannot_be_is_refused(golden_network: GoldenNetwork, tmp_path: Path) -> None:
    network = golden_network(AlphaRule.OFFICIAL, torch.float32)
    with pytest.raises(StateError, match="multiples of 16, got 64 x 50"):
        export_step(network, tmp_path / "step.onnx", (64, 50))
    assert not list(tmp_path.iterdir())
