"""A checkpoint to the files that ship: parameters, the exported step, and the manifest entry."""

import copy
import json
import os
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from model.backends.base import IMAGE, PRESENCE, PROBABILITIES, STATE_OUT
from model.backends.openvino import OpenVinoBackend
from model.encoder import PlainEncoder
from model.errors import WeightsError
from model.network import LiveNetwork, NetworkState
from model.predictor import Predictor, self_test_answer
from model.training.checkpoint import fill, read_checkpoint, read_config
from model.training.quantise import calibration_clips, calibration_frames, quantise
from model.weights import MANIFEST, ModelInfo, read_manifest, sha256_of

STATE_NAMES = ("memory", "sensory")
OPSET = 18
LICENCE = "CC BY-NC-SA 4.0"


class TwoPartConvolution(nn.Module):
    """A convolution and its batch norm, whose weights outlast bfloat16.

    Every weight is the sum of what bfloat16 holds of it and of the rest, and the input meets both:
    sixteen bits of a weight where the runtime computes with eight, the same answer where it
    computes in float32. The network's first convolution sums no more than a few products of grey
    values, so that rounding its few weights moves every outline.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale_C = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        whole = convolution.weight * scale_C[:, None, None, None]
        high = whole.bfloat16().float()
        self.register_buffer("weight", torch.cat([high, whole - high], dim=1).detach())
        self.register_buffer("bias", (norm.bias - norm.running_mean * scale_C).detach())
        self.stride, self.padding = convolution.stride, convolution.padding

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """What convolution and norm give in evaluation."""
        twice_BCHW = torch.cat([x_BCHW, x_BCHW], dim=1)
        return functional.conv2d(twice_BCHW, self.weight, self.bias, self.stride, self.padding)


def with_two_part_stem(network: LiveNetwork) -> LiveNetwork:
    """The same network, its first convolution in two parts."""
    network = copy.deepcopy(network)
    encoder = network.encoder
    if isinstance(encoder, PlainEncoder):
        encoder.down2 = _in_two_parts(encoder.down2)
    else:
        stem, *blocks = encoder.features
        encoder.features = nn.Sequential(_in_two_parts(stem), *blocks)
    return network


def _in_two_parts(stem: nn.Module) -> nn.Sequential:
    assert isinstance(stem, nn.Sequential)
    convolution, norm, *rest = stem
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return nn.Sequential(TwoPartConvolution(convolution, norm), *rest)


class ExportedStep(nn.Module):
    """The step as a function of plain tensors, answering with probabilities."""

    def __init__(self, network: LiveNetwork) -> None:
        super().__init__()
        self.network = with_two_part_stem(network)

    def forward(
        self, image_B1HW: Tensor, memory_BMKV: Tensor, sensory_BCHW: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """probabilities_BNHW without background, presence_B, and the next state."""
        output, state = self.network.step(image_B1HW, NetworkState(memory_BMKV, sensory_BCHW))
        return output.probabilities_BNHW, torch.sigmoid(output.presence_B), *state


def load_checkpoint(path: Path) -> LiveNetwork:
    """The averaged network of a training checkpoint, in evaluation mode.

    Raises:
        WeightsError: no such file, not a checkpoint of a training run, or one whose weights do not
            fit its shape.
    """
    saved = read_checkpoint(path)
    network = LiveNetwork(read_config(saved, path))
    fill(network, saved["average"], path)
    return network.eval()


def export_step(
    network: LiveNetwork, path: Path, *, batch: int = 1, parameters_sha256: str = ""
) -> None:
    """Write the step as ONNX with the state as inputs and outputs.

    Args:
        network: in evaluation mode or not; it is exported as if it were.
        path: file to write.
        batch: sessions that one run of the file steps; fixed in the file.
        parameters_sha256: of the file that the weights came from, kept in the metadata.
    """
    side = network.config.network_size
    arguments = (torch.zeros(batch, 1, side, side), *network.initial_state(batch))
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
    known = {"config": json.dumps(network.config.to_json()), "parameters_sha256": parameters_sha256}
    for key, value in known.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    for node in proto.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(proto, str(path))


def ship(
    checkpoint: Path,
    folder: Path,
    name: str,
    version: str,
    *,
    batches: tuple[int, ...] = (),
    calibration: Path | None = None,
) -> dict[str, Any]:
    """Write parameters, step and manifest of a checkpoint into a weights folder.

    Args:
        checkpoint: of a training run.
        folder: made where it is missing.
        name: of the model in the manifest.
        version: of the model in the manifest.
        batches: sizes above 1 for which a step of that many sessions is written too.
        calibration: folder of a data set whose training patients the step is quantised by; None
            writes no step in eight bits.

    Returns:
        The manifest's entry for the model.

    Raises:
        WeightsError: not a checkpoint, a batch below 2, or no onnxruntime to quantise with.
        FrameError: the data set holds no training patients, or broken ones.
    """
    if any(batch < 2 for batch in batches):
        raise WeightsError(f"a batch of its own file has at least 2 sessions, got {batches}")
    network = load_checkpoint(checkpoint)
    # Read before anything is written, so that what cannot be had leaves the folder as it is.
    side = network.config.network_size
    clips = None if calibration is None else calibration_clips(calibration, side)
    folder.mkdir(parents=True, exist_ok=True)
    parameters, step = folder / f"{name}.safetensors", folder / f"{name}.onnx"
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    # What safetensors writes itself is for its owner alone, and nobody else could serve it.
    parameters.write_bytes(save(tensors))
    sha256 = sha256_of(parameters)
    export_step(network, step, parameters_sha256=sha256)
    entry: dict[str, Any] = {
        "version": version,
        "file": step.name,
        "sha256": sha256_of(step),
        "parameters": parameters.name,
        "parameters_sha256": sha256,
        "parameter_count": sum(p.numel() for p in network.parameters()),
        "licence": LICENCE,
        "config": network.config.to_json(),
    }
    info = ModelInfo(name, version, entry["sha256"], LICENCE, network.config, step, self_test=())
    backend = OpenVinoBackend(step, threads=1, streams=1, precision="f32")
    entry["self_test"] = self_test_answer(Predictor(info, backend))
    for batch in batches:
        several = folder / f"{name}-batch{batch}.onnx"
        export_step(network, several, batch=batch, parameters_sha256=sha256)
        files = entry.setdefault("batches", {})
        files[str(batch)] = {"file": several.name, "sha256": sha256_of(several)}
    if clips is not None:
        quantised = folder / f"{name}-int8.onnx"
        quantise(step, quantised, calibration_frames(step, clips))
        entry["int8"] = {"file": quantised.name, "sha256": sha256_of(quantised)}
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
