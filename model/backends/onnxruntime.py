"""The step in ONNX Runtime: any processor, and through io-binding CUDA and TensorRT."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.backends.base import IMAGE, PRESENCE, PROBABILITIES, STATE_OUT, Step
from model.errors import WeightsError
from model.state import MemoryState, StateSpec

Device = Literal["cpu", "cuda", "tensorrt"]

PROVIDERS: dict[Device, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": (
        "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider",
    ),
}  # fmt: skip
"""The first runs what it can, the others what it cannot."""


def best_device() -> Device:
    """The fastest that this installation can use."""
    available = onnxruntime.get_available_providers()
    return "cuda" if PROVIDERS["cuda"][0] in available else "cpu"


class OnnxRuntimeBackend:
    """A step whose outputs are written to the same memory frame after frame.

    Args:
        path: the exported step (ONNX).
        threads: processor threads for inference in all.
        streams: frames inferred at the same time.
        device: where the network runs.

    Raises:
        WeightsError: the file is not an exported step, or this installation lacks the device.
    """

    name = "onnxruntime"

    def __init__(
        self, path: Path, *, threads: int, streams: int = 1, device: Device = "cpu"
    ) -> None:
        if PROVIDERS[device][0] not in onnxruntime.get_available_providers():
            raise WeightsError(f"this onnxruntime cannot run on {device}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads // streams)
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=list(PROVIDERS[device])
            )
        except Exception as error:
            # The library's errors share no base class of their own.
            raise WeightsError(f"{path.name} is not an exported step: {error}") from error
        ports = [port for port in self._session.get_inputs() if port.name != IMAGE]
        names = tuple(port.name for port in ports)
        self.spec = StateSpec(names, tuple(tuple(port.shape) for port in ports))
        self._bindings: SimpleQueue[_Binding] = SimpleQueue()
        for _ in range(streams):
            self._bindings.put(_Binding(self._session))

    def step(self, image_11HW: NDArray[np.float32], state: MemoryState) -> Step:
        """See ``Backend.step``; the interpreter lock is free while the network runs."""
        inputs = {IMAGE: image_11HW, **dict(zip(self.spec.names, state.arrays, strict=True))}
        with self._binding() as binding:
            outputs = binding.run(inputs)
            probabilities_NHW = outputs[PROBABILITIES][0].copy()
            presence = float(outputs[PRESENCE].reshape(()))
            arrays = tuple(outputs[STATE_OUT + name].copy() for name in self.spec.names)
        return probabilities_NHW, presence, MemoryState(self.spec, arrays)

    @contextmanager
    def _binding(self) -> Iterator["_Binding"]:
        binding = self._bindings.get()
        try:
            yield binding
        finally:
            self._bindings.put(binding)


class _Binding:
    """Output memory of one frame under way; it holds no session's state between two frames."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        self._session = session
        self._io = session.io_binding()
        self._outputs: dict[str, Any] = {}
        for port in session.get_outputs():
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(port.shape, np.float32)
            self._io.bind_ortvalue_output(port.name, value)
            self._outputs[port.name] = value

    def run(self, inputs: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the step; the arrays returned are written again by the next run."""
        for name, array in inputs.items():
            self._io.bind_cpu_input(name, np.ascontiguousarray(array))
        self._session.run_with_iobinding(self._io)
        return {name: value.numpy() for name, value in self._outputs.items()}
