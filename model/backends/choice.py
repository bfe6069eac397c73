"""Which backend serves here, on how many threads and streams: a rule, then a short measurement.

What decides about bits (backend and precision) follows from the machine alone, so that a session
goes on with the same bits after a restart. What only decides about time is measured.
"""

import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from model.backends.base import Backend
from model.backends.batching import Batching
from model.backends.openvino import OpenVinoBackend, gains_by_int8
from model.errors import WeightsError
from model.state import MemoryState
from model.weights import ModelInfo, parameters_of

BackendName = Literal["auto", "openvino", "onnxruntime", "torch"]

NVIDIA_DEVICE = Path("/dev/nvidiactl")
GPU_ROWS = 16
"""Sessions a run on a GPU takes; one shape, so that neighbours change no bit of an answer.

Source: docs/performance.md, one H100: of 8, 16 and several shapes, 16 holds most sessions at 60
frames/s.
"""
GPU_SLOTS = 256
"""Sessions whose state stays on a GPU; 53 KiB each."""

TRIAL_S = 0.08
ROUNDS = 3
"""The ways to run take turns and the best of each counts, so that a neighbour's load hits all."""

WORTH_WHILE = 1.05
"""More threads a frame must answer this many times as many frames: threads that wait for each other
are lost to decoding and measuring."""

WORTH_WHILE_ALONE = 1.2
"""The same for a frame that is alone."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to run the network, measured.

    Attributes:
        streams: frames under way at once; the threads are spread over them.
        fps: frames a second of all of them together.
        alone_ms: median time of a frame that is alone, on as many threads as in a crowd.
    """

    backend: str
    precision: str
    threads: int
    streams: int
    fps: float
    alone_ms: float


@dataclass(frozen=True, slots=True)
class Choice:
    """How the network runs here.

    Attributes:
        alone_threads: of a frame that finds nobody at work.
        trials: what was measured for it, empty where nothing was.
        why: in a sentence.
    """

    backend: str
    precision: str
    threads: int
    streams: int
    alone_threads: int
    trials: tuple[Trial, ...]
    why: str

    @property
    def fps(self) -> float | None:
        """Frames a second of all streams together, None where it was not measured."""
        matches = [each.fps for each in self.trials if each.streams == self.streams]
        return matches[0] if matches else None


def choose(
    model: ModelInfo,
    *,
    backend: BackendName = "auto",
    threads: int = 1,
    streams: int | None = 1,
    precision: str | None = None,
) -> tuple[Backend, Choice]:
    """Make the backend for this machine.

    Args:
        model: the weights.
        backend: which one, ``auto`` for what suits the machine.
        threads: processor threads for inference in all.
        streams: frames inferred at the same time; None measures how many are best.
        precision: ``int8``, ``bf16``, ``f32``, or None for what the processor does best.

    Raises:
        WeightsError: a backend that is not installed or has not this precision, or damaged files.
    """
    name, why = _for_this_machine() if backend == "auto" else (backend, f"{backend}, as set")
    if streams is not None:
        made, found = _make(model, name, threads, streams, None, precision)
        return made, Choice(name, found, threads, streams, threads, (), why)
    tried, trials = _try(model, name, threads, precision)
    best, alone = _best_crowd(trials), _best_alone(trials)
    wide = max(1, threads // alone.streams)
    if name == "openvino" and wide > max(1, threads // best.streams):
        chosen, _ = _make(model, name, threads, best.streams, wide, precision)
    else:
        chosen = tried[trials.index(best)]
    told = ", ".join(f"{each.fps:.0f} frames/s on {each.streams}" for each in trials)
    why = (
        f"{why}; streams measured: {told}; "
        f"a lone frame takes {alone.alone_ms:.1f} ms, threads for it: {wide}"
    )
    return chosen, Choice(name, best.precision, threads, best.streams, wide, tuple(trials), why)


def _try(
    model: ModelInfo, name: BackendName, threads: int, precision: str | None
) -> tuple[list[Backend], list[Trial]]:
    """Measure every number of streams, the most first, in turns."""
    counts = _counts(name, threads)
    made = [
        _make(model, name, threads, count, max(1, threads // count), precision) for count in counts
    ]
    speeds = [
        [
            measure(each, model.network_size, count)
            for (each, _), count in zip(made, counts, strict=True)
        ]
        for _ in range(ROUNDS)
    ]
    trials = [
        Trial(name, found, threads, count, max(fps for fps, _ in each), min(ms for _, ms in each))
        for (_, found), count, each in zip(made, counts, zip(*speeds, strict=True), strict=True)
    ]
    return [each for each, _ in made], trials


def _best_crowd(trials: Sequence[Trial]) -> Trial:
    """The fastest for many; fewer streams, more threads each, must be worth while."""
    best = trials[0]
    for each in trials[1:]:
        if each.fps > WORTH_WHILE * best.fps:
            best = each
    return best


def _best_alone(trials: Sequence[Trial]) -> Trial:
    """The fastest for one; more threads must be worth while."""
    best = trials[0]
    for each in trials[1:]:
        if WORTH_WHILE_ALONE * each.alone_ms < best.alone_ms:
            best = each
    return best


def measure(backend: Backend, side_px: int, streams: int) -> tuple[float, float]:
    """Time steps on a black frame and an empty state; nobody keeps their answers.

    Returns:
        Frames a second of all streams together, and the median milliseconds of a lone frame.
    """
    state = MemoryState.zeros(backend.spec)
    image_11HW = np.zeros((1, 1, side_px, side_px), np.float32)

    def step_for(trial_s: float) -> list[float]:
        times_s: list[float] = []
        ends_s = time.perf_counter() + trial_s
        while not times_s or time.perf_counter() < ends_s:
            began_s = time.perf_counter()
            backend.step(image_11HW, state)
            times_s.append(time.perf_counter() - began_s)
        return times_s

    step_for(0.0)
    alone_s = float(np.median(step_for(TRIAL_S)))
    with ThreadPoolExecutor(streams) as pool:
        started_s = time.perf_counter()
        counts = [len(each) for each in pool.map(step_for, [TRIAL_S] * streams)]
        elapsed_s = time.perf_counter() - started_s
    return sum(counts) / elapsed_s, 1000 * alone_s


def _for_this_machine() -> tuple[BackendName, str]:
    """The backend, and why: a look at the machine that loads neither torch nor a driver."""
    if not NVIDIA_DEVICE.exists():
        return "openvino", "openvino, since there is no NVIDIA GPU"
    if importlib.util.find_spec("torch") is None:
        return "openvino", "openvino: there is an NVIDIA GPU, but torch is not installed"
    return "torch", "torch, since there is an NVIDIA GPU"


def _counts(name: BackendName, threads: int) -> list[int]:
    """Numbers of streams worth a trial, the most first."""
    if name == "torch":
        return [2 * GPU_ROWS if NVIDIA_DEVICE.exists() else 1]
    return sorted({1, max(1, threads // 4), max(1, threads // 2), threads}, reverse=True)


def _make(
    model: ModelInfo,
    name: BackendName,
    threads: int,
    streams: int,
    alone_threads: int | None,
    precision: str | None,
) -> tuple[Backend, str]:
    """One backend, and the precision that it runs at.

    Raises:
        WeightsError: it is not installed, has not this precision, or a file is damaged.
    """
    try:
        match name:
            case "onnxruntime":
                return _make_onnxruntime(model, threads, streams, precision)
            case "torch":
                return _make_torch(model, threads, precision)
            case _:
                quantised = _quantised(model, precision)
                made = OpenVinoBackend(
                    quantised or model.path,
                    threads=threads,
                    streams=streams,
                    alone_threads=alone_threads,
                    precision=None if quantised else precision,
                )
                return made, "int8" if quantised else made.precision
    except ModuleNotFoundError as error:
        raise WeightsError(f"the backend {name} needs {error.name}, which is not here") from error


def _quantised(model: ModelInfo, precision: str | None) -> Path | None:
    """The file in eight bits, where it is asked for or what the processor does best.

    Raises:
        WeightsError: it is asked for, and the model has none.
    """
    if precision == "int8" and model.quantised is None:
        raise WeightsError(f"{model.name} has no file in int8; gdkvm export --int8 makes one")
    is_wanted = precision == "int8" or (precision is None and gains_by_int8())
    return model.quantised if is_wanted else None


def _make_onnxruntime(
    model: ModelInfo, threads: int, streams: int, precision: str | None
) -> tuple[Backend, str]:
    from model.backends.onnxruntime import OnnxRuntimeBackend, best_device

    if precision not in (None, "f32", "int8"):
        raise WeightsError(f"the backend onnxruntime runs at f32 or int8, not at {precision}")
    path = _quantised(model, precision or "f32") or model.path
    made = OnnxRuntimeBackend(path, threads=threads, streams=streams, device=best_device())
    return made, precision or "f32"


def _make_torch(model: ModelInfo, threads: int, precision: str | None) -> tuple[Backend, str]:
    from model.backends.torch import TorchBackend, has_cuda

    if precision not in (None, "f32", "bf16"):
        raise WeightsError(f"the backend torch runs at f32 or bf16, not at {precision}")
    is_full = precision == "f32" or (precision is None and not has_cuda())
    found: Literal["f32", "bf16"] = "f32" if is_full else "bf16"
    parameters = parameters_of(model)
    if not has_cuda():
        made = TorchBackend(parameters, model.config, threads=threads, precision=found)
        return made, found
    shared = TorchBackend(
        parameters,
        model.config,
        rows=GPU_ROWS,
        slots=GPU_SLOTS,
        device="cuda",
        precision=found,
    )
    return Batching(shared), found
