"""The published network at 256 x 256: exported and run in OpenVINO, against itself in torch."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.base import AlphaRule, BaseConfig, BaseNetwork
from model.base.export import INPUT_NAMES, export_step

SIDE_PX = 256
ROUNDS, EAGER_FRAMES, FRAMES = 3, 2, 6
PEAK_SIDE = 1536


def measure_base(threads: int) -> dict[str, float]:
    """Time both in turns, so that both see the same machine; the parameters are random.

    Returns:
        fps, eager_fps, ratio and peak_fraction: operations a second over those of a large product
        of matrices at the same precision.
    """
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    network = BaseNetwork(BaseConfig(alpha_rule=AlphaRule.RERELEASE)).eval()
    state = network.initial_state(1, SIDE_PX, SIDE_PX, 1)
    image_BCHW = torch.rand(1, 1, SIDE_PX, SIDE_PX)
    with torch.inference_mode():
        _, state = network.step(image_BCHW, state)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = export_step(network, Path(folder) / "base.onnx", (SIDE_PX, SIDE_PX))
        compiled = ov.Core().compile_model(str(path), "CPU", _options(threads))
    tensors = (image_BCHW, *state.tensors())
    inputs = {n: np.array(t) for n, t in zip(INPUT_NAMES, tensors, strict=True)}
    request = compiled.create_infer_request()

    def eager() -> None:
        with torch.inference_mode():
            network.step(image_BCHW, state)

    times_s: list[float] = []
    eager_s: list[float] = []
    for _ in range(ROUNDS):
        eager_s += times_of(eager, EAGER_FRAMES)
        times_s += times_of(
            lambda: request.infer(inputs, share_inputs=True, share_outputs=True), FRAMES
        )
    counter: Any = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.step(image_BCHW, state)
    step_s, step_eager_s = float(np.median(times_s)), float(np.median(eager_s))
    return {
        "fps": round(1 / step_s, 2),
        "eager_fps": round(1 / step_eager_s, 2),
        "ratio": round(step_eager_s / step_s, 2),
        "peak_fraction": round(counter.get_total_flops() / step_s / peak_flops(threads), 3),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself off the terminal."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)


def times_of(work: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of some calls, after one that does not count."""
    work()
    times_s = []
    for _ in range(count):
        began_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - began_s)
    return times_s


def peak_flops(threads: int) -> float:
    """Operations a second of a large product of matrices, the best of several."""
    left = ov.opset13.parameter([PEAK_SIDE, PEAK_SIDE], np.float32)
    right = ov.opset13.constant(np.ones((PEAK_SIDE, PEAK_SIDE), np.float32))
    product = ov.Model([ov.opset13.matmul(left, right, False, False)], [left])
    request = ov.Core().compile_model(product, "CPU", _options(threads)).create_infer_request()
    ones = np.ones((PEAK_SIDE, PEAK_SIDE), np.float32)
    best_s = min(times_of(lambda: request.infer([ones], share_inputs=True, share_outputs=True), 6))
    return 2.0 * PEAK_SIDE**3 / best_s


def _options(threads: int) -> dict[str, Any]:
    return {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
