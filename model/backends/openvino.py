"""The step in OpenVINO: the default on a CPU."""

from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from model.backends.base import IMAGE, PRESENCE, PROBABILITIES, STATE_OUT
from model.errors import WeightsError
from model.state import MemoryState, StateSpec


class OpenVinoBackend:
    """A compiled step with as many inference requests as streams.

    Args:
        path: the exported step (ONNX).
        threads: processor threads for inference in all.
        streams: frames inferred at the same time; threads are spread over them.
        precision: ``bf16``, ``f32``, or None for what the processor does best.

    Raises:
        WeightsError: the file is not an exported step.
    """

    name = "openvino"

    def __init__(
        self, path: Path, *, threads: int, streams: int, precision: str | None = None
    ) -> None:
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": max(threads, streams),
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,
        }
        if precision is not None:
            options["INFERENCE_PRECISION_HINT"] = precision
        try:
            self._compiled = ov.Core().compile_model(str(path), "CPU", options)
            names = tuple(port.get_any_name() for port in self._compiled.inputs)
            state = [name for name in names if name != IMAGE]
            shapes = tuple(tuple(self._compiled.input(name).shape) for name in state)
        except RuntimeError as error:
            raise WeightsError(f"{path.name} is not an exported step: {error}") from error
        self.spec = StateSpec(tuple(state), shapes)
        self.precision = str(self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        self._free: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(streams):
            self._free.put(self._compiled.create_infer_request())

    def step(
        self, image_11HW: NDArray[np.float32], state: MemoryState
    ) -> tuple[NDArray[np.float32], float, MemoryState]:
        """See ``Backend.step``; the interpreter lock is free while the network runs."""
        request = self._free.get()
        try:
            inputs = {IMAGE: image_11HW, **dict(zip(state.spec.names, state.arrays, strict=True))}
            result = request.infer(inputs, share_inputs=True, share_outputs=True)
            probabilities_NHW = np.array(result[PROBABILITIES][0], np.float32)
            presence = float(result[PRESENCE][0])
            arrays = tuple(
                np.array(result[STATE_OUT + name], np.float32) for name in state.spec.names
            )
        finally:
            self._free.put(request)
        return probabilities_NHW, presence, MemoryState(self.spec, arrays)
