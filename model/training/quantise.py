"""An exported step to one that convolves in eight bits, calibrated on training clips.

Only convolutions are quantised: weights to signed eight bits for each output channel, activations
to unsigned eight bits for each tensor, between the least and the greatest value that calibration
saw. The first convolution, whose few weights move every outline, keeps its full precision, and so
does everything else.

Source:
    Nagel et al. 2021, arXiv:2106.08295, sections 2 and 3 (quantisation after training); the ONNX
    operators QuantizeLinear and DequantizeLinear.
"""

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from model.backends.base import IMAGE, Backend
from model.backends.openvino import OpenVinoBackend
from model.errors import FrameError, WeightsError
from model.state import MemoryState
from model.training.config import TrainConfig
from model.training.patients import read_studies
from model.training.sets import open_set
from model.training.synthesis import make_batch

PATIENTS = 48
"""Training patients of whom calibration sees a clip."""

CLIP_FRAMES = 4

Inputs = dict[str, NDArray[np.float32]]
"""What one frame hands to the step, by the names of its inputs."""


def quantise(step: Path, out: Path, frames: list[Inputs]) -> None:
    """Write the step with quantised convolutions, its metadata kept.

    Args:
        step: exported, of one session.
        out: file to write.
        frames: what calibration looks at.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    network = onnx.load(str(step))
    stem = next(node.name for node in network.graph.node if node.op_type == "Conv")
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(
            str(step), str(prepared), skip_symbolic_shape=True, skip_optimization=True
        )
        quantization.quantize_static(
            str(prepared),
            str(out),
            _Reader(frames),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[stem],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    written = onnx.load(str(out))
    del written.metadata_props[:]
    written.metadata_props.extend(network.metadata_props)
    onnx.save(written, str(out))


class _Reader:
    """Calibration frames as onnxruntime asks for them."""

    def __init__(self, frames: list[Inputs]) -> None:
        self._left = iter(frames)

    def get_next(self) -> Inputs | None:
        """The next frame, None after the last."""
        return next(self._left, None)


def calibration_clips(data: Path, side: int) -> NDArray[np.float32]:
    """Training clips of a data set, images_BTHW; whatever quantising wants is found out here.

    The clips beat, and look and are spoilt as in training; some show no heart.

    Raises:
        WeightsError: onnxruntime, which quantises, is not installed.
        FrameError: the folder holds no training patients, or broken ones.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise WeightsError("quantising needs onnxruntime, which is not here")
    found = open_set(data)
    studies = found.of_split("train", ("4CH",)) or found.of_split("train")
    if not studies:
        raise FrameError(f"{data} has no training patients to calibrate with")
    chosen = studies[:: max(1, len(studies) // PATIENTS)][:PATIENTS]
    patients = read_studies(chosen, 2 * side, found.known)
    config = TrainConfig(
        str(data), batch=len(patients), clip_frames=CLIP_FRAMES, burst_share=0.25, network_size=side
    )
    return make_batch(patients, [], config, 0).images_BTHW


def calibration_frames(step: Path, images_BTHW: NDArray[np.float32]) -> list[Inputs]:
    """What clips hand to the step, frame by frame."""
    backend = OpenVinoBackend(step, threads=1, streams=1, precision="f32")
    return [each for clip_THW in images_BTHW for each in _inputs(backend, clip_THW)]


def _inputs(backend: Backend, clip_THW: NDArray[np.float32]) -> Iterator[Inputs]:
    state = MemoryState.zeros(backend.spec)
    for image_HW in clip_THW:
        image_11HW = image_HW[None, None]
        yield {IMAGE: image_11HW, **dict(zip(backend.spec.names, state.arrays, strict=True))}
        _, _, state = backend.step(image_11HW, state)
