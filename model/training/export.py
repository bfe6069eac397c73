"""A checkpoint to the files that ship: parameters, the exported step, and the manifest entry."""

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.backends.base import IMAGE, PRESENCE, PROBABILITIES, STATE_OUT
from model.backends.openvino import OpenVinoBackend
from model.config import ModelConfig
from model.errors import WeightsError
from model.network import LiveNetwork, NetworkState
from model.predictor import Predictor, self_test_answer
from model.weights import MANIFEST, ModelInfo, read_manifest, sha256_of

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
    """The averaged network of a training checkpoint, in evaluation mode.

    Raises:
        WeightsError: no such file, or not a checkpoint of a training run.
    """
    try:
        saved = torch.load(path, weights_only=True)
        network = LiveNetwork(ModelConfig.from_json(json.loads(saved["model_config"])))
        network.load_state_dict(saved["average"])
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not a checkpoint of a training run: {error}") from error
    return network.eval()


def export_step(network: LiveNetwork, path: Path) -> None:
    """Write the step as ONNX with the state as inputs and outputs, batch size 1."""
    side = network.config.network_size
    arguments = (torch.zeros(1, 1, side, side), *network.initial_state(1))
    outputs = [PROBABILITIES, PRESENCE, *(STATE_OUT + name for name in STATE_NAMES)]
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter of torch 2.13 uses what torch 2.13 deprecates.
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec", category=FutureWarning)
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
    }
    info = ModelInfo(name, version, entry["sha256"], LICENCE, network.config, step, self_test=())
    backend = OpenVinoBackend(step, threads=1, streams=1, precision="f32")
    entry["self_test"] = self_test_answer(Predictor(info, backend))
    write_entry(folder, name, entry)
    return entry


def write_entry(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Put one model into the folder's manifest, making the manifest where there is none.

    Raises:
        WeightsError: there is a manifest, but not one that can be read.
    """
    path = folder / MANIFEST
    manifest: dict[str, Any] = {"default": name, "models": {}}
    if path.exists():
        manifest = read_manifest(folder)
    manifest["models"][name] = entry
    part = path.with_suffix(".part")
    part.write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(part, path)
