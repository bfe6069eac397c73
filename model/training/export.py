"""A checkpoint to the files that ship: parameters, the exported step, and the manifest entry."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.backends.base import IMAGE, PRESENCE, PROBABILITIES, STATE_OUT
from model.config import ModelConfig
from model.network import LiveNetwork, NetworkState
from model.predictor import Predictor, load_predictor, self_test_answer
from model.weights import MANIFEST, sha256_of

STATE_NAMES = ("memory", "sensory")
OPSET = 18
LICENCE = "CC BY-NC-SA 4.0"


class ExportedStep(nn.Module):
    """The step as a function of plain tensors, answering with probabilities."""

    def __init__(self, network: LiveNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, image_B1HW: Tensor, memory_BMKV: Tensor, sensory_BCHW: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """probabilities_BNHW without background, presence_B, and the next state."""
        output, state = self.network.step(image_B1HW, NetworkState(memory_BMKV, sensory_BCHW))
        probabilities_BNHW = output.logits_BNHW.softmax(dim=1)[:, 1:]
        return probabilities_BNHW, torch.sigmoid(output.presence_B), *state


def load_checkpoint(path: Path) -> LiveNetwork:
    """The averaged network of a training checkpoint, in evaluation mode."""
    saved = torch.load(path, weights_only=True)
    network = LiveNetwork(ModelConfig.from_json(json.loads(saved["model_config"])))
    network.load_state_dict(saved["average"])
    return network.eval()


def export_step(network: LiveNetwork, path: Path) -> None:
    """Write the step as ONNX with the state as inputs and outputs, batch size 1."""
    side = network.config.network_size
    arguments = (torch.zeros(1, 1, side, side), *network.initial_state(1))
    outputs = [PROBABILITIES, PRESENCE, *(STATE_OUT + name for name in STATE_NAMES)]
    with torch.no_grad():
        program = torch.onnx.export(
            ExportedStep(network).eval(),
            arguments,
            input_names=[IMAGE, *STATE_NAMES],
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "config", json.dumps(network.config.to_json())
    for node in proto.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(proto, str(path))


def ship(checkpoint: Path, folder: Path, name: str, version: str) -> dict[str, Any]:
    """Write parameters, step and manifest of a checkpoint into a weights folder.

    Returns:
        The manifest's entry for the model.
    """
    network = load_checkpoint(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    parameters, step = folder / f"{name}.safetensors", folder / f"{name}.onnx"
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, parameters)
    export_step(network, step)
    entry: dict[str, Any] = {
        "version": version,
        "file": step.name,
        "sha256": sha256_of(step),
        "parameters": parameters.name,
        "parameters_sha256": sha256_of(parameters),
        "parameter_count": sum(p.numel() for p in network.parameters()),
        "licence": LICENCE,
        "config": network.config.to_json(),
        "self_test": np.zeros((9, 9)).tolist(),
    }
    write_entry(folder, name, entry)
    predictor: Predictor = load_predictor(name, precision="f32", folder=folder)
    entry["self_test"] = self_test_answer(predictor)
    write_entry(folder, name, entry)
    return entry


def write_entry(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Put one model into the folder's manifest, making the manifest where there is none."""
    path = folder / MANIFEST
    manifest: dict[str, Any] = {"default": name, "models": {}}
    if path.exists():
        manifest = json.loads(path.read_text())
    manifest["models"][name] = entry
    path.write_text(json.dumps(manifest, indent=1) + "\n")
