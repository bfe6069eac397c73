"""The step in OpenVINO: the default on a CPU."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from queue import LifoQueue
from threading import Lock
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from model.backends.base import IMAGE, PRESENCE, PROBABILITIES, STATE_OUT
from model.errors import WeightsError
from model.state import MemoryState, StateSpec

MOST_COMPILED = 8
"""Compiled for one stream, a network runs in the thread that calls it; compiled for several, it
hands every frame to a thread of the library's, which costs two changes of threads. So each stream
has a network of its own, up to this many: each takes 16 MB and a fifth of a second."""


CPUINFO = Path("/proc/cpuinfo")
"""The processor's instruction sets, on Linux: what ``OPTIMIZATION_CAPABILITIES`` calls BF16 may be
the matrix unit (AMX) or vectors (AVX-512), of which the first is several times as fast."""


def gains_by_int8() -> bool:
    """Whether eight bits serve best here.

    Half precision and bfloat16 on a matrix unit serve where there is either: they are nearer to
    float32, and fast. Bfloat16 on vectors takes half as long again as eight bits do.

    Source:
        docs/performance.md, "Eight bits".
    """
    found = set(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    is_fast = "FP16" in found or ("BF16" in found and not _has_vectors_alone())
    return "INT8" in found and not is_fast


def _has_vectors_alone() -> bool:
    """Whether bfloat16 is there without a matrix unit; False where the system does not tell."""
    try:
        flags = set(CPUINFO.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return "avx512_bf16" in flags and "amx_bf16" not in flags


class OpenVinoBackend:
    """A step compiled for several frames at once, and for one alone where it gets more threads.

    Which of the two answers changes no bit of the answer, only how soon it comes.

    Args:
        path: the exported step (ONNX).
        threads: processor threads for inference in all.
        streams: frames inferred at the same time; threads are spread over them.
        alone_threads: of a frame that finds nobody at work; None for all.
        precision: ``bf16``, ``f32``, or None for what the processor does best.

    Raises:
        WeightsError: the file is not an exported step.
    """

    name = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        streams: int,
        alone_threads: int | None = None,
        precision: str | None = None,
    ) -> None:
        wide = alone_threads or threads
        try:
            core = ov.Core()
            network = core.read_model(str(path))
            names = tuple(port.get_any_name() for port in network.inputs)
            state = [name for name in names if name != IMAGE]
            shapes = tuple(tuple(network.input(name).shape) for name in state)
            models = min(streams, MOST_COMPILED)
            options = _options(ceil(threads / models), ceil(streams / models), precision)
            crowd = [core.compile_model(network, "CPU", options) for _ in range(models)]
            alone = (
                None
                if wide <= max(1, threads // streams)
                else core.compile_model(network, "CPU", _options(wide, 1, precision))
            )
        except RuntimeError as error:
            raise WeightsError(f"{path.name} is not an exported step: {error}") from error
        self.spec = StateSpec(tuple(state), shapes)
        self.precision = str(crowd[0].get_property("INFERENCE_PRECISION_HINT").to_string())
        # The library's first run fills a table under a lock of its own; two first runs at once in
        # two threads wait for each other for ever. That is why each runs here once.
        self._alone = alone and _Request(alone)
        # Last in, first out: what ran last has its weights in the cache.
        self._crowd: LifoQueue[_Request] = LifoQueue()
        for number in range(streams):
            self._crowd.put(_Request(crowd[number % models]))
        self._counting = Lock()
        self._under_way = 0

    def step(
        self, image_11HW: NDArray[np.float32], state: MemoryState
    ) -> tuple[NDArray[np.float32], float, MemoryState]:
        """See ``Backend.step``; the interpreter lock is free while the network runs."""
        with self._request() as request:
            np.copyto(request.inputs[IMAGE], image_11HW)
            for name, array in zip(self.spec.names, state.arrays, strict=True):
                np.copyto(request.inputs[name], array)
            request.run()
            outputs = request.outputs
            probabilities_NHW = outputs[PROBABILITIES][0].copy()
            presence = float(outputs[PRESENCE][0])
            arrays = tuple(outputs[STATE_OUT + name].copy() for name in self.spec.names)
        return probabilities_NHW, presence, MemoryState(self.spec, arrays)

    @contextmanager
    def _request(self) -> "Iterator[_Request]":
        """Lend the request on more threads to whoever finds nobody at work, else another one."""
        with self._counting:
            alone = None if self._under_way else self._alone
            self._under_way += 1
        request = alone or self._crowd.get()
        try:
            yield request
        finally:
            if alone is None:
                self._crowd.put(request)
            with self._counting:
                self._under_way -= 1


class _Request:
    """Memory for one frame under way, and what runs it.

    Attributes:
        inputs: by name, to be written before a run.
        outputs: by name, written by every run.
    """

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self.inputs = self._own(compiled.inputs)
        self.outputs = self._own(compiled.outputs)
        self.run()

    def run(self) -> None:
        """Run once, in the calling thread."""
        self._request.infer(share_outputs=True)

    def _own(self, ports: Sequence[ov.ConstOutput]) -> dict[str, NDArray[np.float32]]:
        """Give the ports memory of ours, which spares the library its look at every argument."""
        arrays = {port.get_any_name(): np.zeros(tuple(port.shape), np.float32) for port in ports}
        for port in ports:
            memory = ov.Tensor(arrays[port.get_any_name()], shared_memory=True)
            self._request.set_tensor(port, memory)
        return arrays


def _options(threads: int, streams: int, precision: str | None) -> dict[str, Any]:
    hint = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
    return {
        "INFERENCE_NUM_THREADS": max(threads, streams),
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,
        **hint,
    }
