"""Three runtimes, one step: the same answers, whoever runs beside it and whatever ran before."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.backends.base import Backend, Detour
from model.backends.batching import Batching, Row
from model.backends.onnxruntime import OnnxRuntimeBackend
from model.backends.openvino import OpenVinoBackend
from model.backends.torch import TorchBackend
from model.config import ModelConfig
from model.errors import StateError, WeightsError
from model.state import MemoryState, StateSpec

SIDE = 48
ROWS = 4
Answer = tuple[NDArray[np.float32], float, MemoryState]


@pytest.fixture(scope="module")
def config(tiny_weights: Path) -> ModelConfig:
    manifest = json.loads((tiny_weights / "manifest.json").read_text())
    return ModelConfig.from_json(manifest["models"]["tiny"]["config"])


@pytest.fixture(scope="module")
def runtimes(tiny_weights: Path, config: ModelConfig) -> dict[str, Backend]:
    step, parameters = tiny_weights / "tiny.onnx", tiny_weights / "tiny.safetensors"
    return {
        "openvino": OpenVinoBackend(step, threads=2, streams=2, precision="f32"),
        "onnxruntime": OnnxRuntimeBackend(step, threads=2, streams=2),
        "torch": TorchBackend(parameters, config),
    }


def image(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 1, SIDE, SIDE), np.float32)


def state(spec: StateSpec, seed: int) -> MemoryState:
    rng = np.random.default_rng(seed)
    arrays = tuple(rng.uniform(-1, 1, shape).astype(np.float32) for shape in spec.shapes)
    return MemoryState(spec, arrays)


def stream(step: Callable[..., Answer], spec: StateSpec, frames: int, seed: int) -> list[Answer]:
    """Frames of one session, one after the other."""
    answers, memory = [], MemoryState.zeros(spec)
    for number in range(frames):
        answer = step(image(1000 * seed + number), memory)
        memory = answer[2]
        answers.append(answer)
    return answers


def bits(answer: Answer) -> tuple[bytes, float, tuple[bytes, ...]]:
    probabilities_NHW, presence, memory = answer
    return probabilities_NHW.tobytes(), presence, tuple(a.tobytes() for a in memory.arrays)


def reference(tiny_weights: Path, config: ModelConfig, frames: int) -> list[Answer]:
    """The network itself, without any backend."""
    from safetensors.torch import load_file

    from model.network import LiveNetwork, NetworkState

    network = LiveNetwork(config)
    network.load_state_dict(load_file(tiny_weights / "tiny.safetensors"))
    network.eval()
    spec = StateSpec(("memory", "sensory"), tuple(tuple(p.shape) for p in network.initial_state(1)))

    def step(image_11HW: NDArray[np.float32], memory: MemoryState) -> Answer:
        with torch.no_grad():
            before = NetworkState(*map(torch.from_numpy, memory.arrays))
            output, after = network.step(torch.from_numpy(image_11HW), before)
        arrays = tuple(part.numpy() for part in after)
        probabilities_NHW = output.logits_BNHW.softmax(dim=1)[0, 1:].numpy()
        return probabilities_NHW, float(output.presence_B.sigmoid()), MemoryState(spec, arrays)

    return stream(step, spec, frames, seed=1)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torch"])
def test_every_runtime_gives_the_networks_own_answers(
    runtimes: dict[str, Backend], tiny_weights: Path, config: ModelConfig, name: str
) -> None:
    backend = runtimes[name]
    found = stream(backend.step, backend.spec, 6, seed=1)
    for ours, theirs in zip(found, reference(tiny_weights, config, 6), strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], atol=2e-5)
        assert ours[1] == pytest.approx(theirs[1], abs=2e-5)
        for one, other in zip(ours[2].arrays, theirs[2].arrays, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torch"])
def test_sessions_side_by_side_change_no_bit_of_each_other(
    runtimes: dict[str, Backend], name: str
) -> None:
    backend = runtimes[name]
    alone = [stream(backend.step, backend.spec, 12, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        crowd = list(pool.map(lambda seed: stream(backend.step, backend.spec, 12, seed), range(4)))
    assert [list(map(bits, each)) for each in crowd] == [list(map(bits, each)) for each in alone]


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torch"])
def test_a_step_leaves_its_inputs_alone_and_keeps_none_of_its_answers(
    runtimes: dict[str, Backend], name: str
) -> None:
    backend = runtimes[name]
    before = state(backend.spec, 5)
    kept = [array.copy() for array in before.arrays]
    first = backend.step(image(3), before)
    told = bits(first)
    backend.step(image(4), first[2])
    assert bits(first) == told
    assert all(np.array_equal(a, b) for a, b in zip(kept, before.arrays, strict=True))


class RowsOfSums:
    """Answers with the sum of a session's images; a run waits until it is let go."""

    name = "sums"
    spec = StateSpec(("sum",), ((1, 1),))
    rows = 3

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.batches: list[int] = []

    def step(self, image_11HW: NDArray[np.float32], memory: MemoryState) -> Answer:
        return self.step_rows([(image_11HW, memory)])[0]

    def step_rows(self, rows: list[Row]) -> list[Answer]:
        self.batches.append(len(rows))
        self.entered.release()
        assert self.gate.wait(20)
        return [self._answer(*row) for row in rows]

    def _answer(self, image_11HW: NDArray[np.float32], memory: MemoryState) -> Answer:
        if image_11HW.sum() < 0:
            raise StateError("below zero")
        total = memory.arrays[0] + image_11HW.sum()
        return image_11HW[0], 1.0, MemoryState(self.spec, (total.astype(np.float32),))


def test_who_calls_during_a_run_shares_the_next_one_up_to_its_rows() -> None:
    inner = RowsOfSums()
    shared = Batching(inner)  # type: ignore[arg-type]
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(stream, shared.step, inner.spec, 1, 0)
        assert inner.entered.acquire(timeout=20)
        others = [pool.submit(stream, shared.step, inner.spec, 1, seed) for seed in range(1, 6)]
        while len(shared._waiting) < 5:
            threading.Event().wait(0.001)
        inner.gate.set()
        answers = [each.result(20)[0] for each in (first, *others)]
    assert inner.batches == [1, 3, 2]
    for seed, answer in enumerate(answers):
        assert answer[0].tobytes() == image(1000 * seed)[0].tobytes()


def test_a_run_that_fails_is_told_to_all_that_shared_it_and_to_nobody_else() -> None:
    inner = RowsOfSums()
    inner.gate.set()
    shared = Batching(inner)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="below zero"):
        shared.step(-image(0), MemoryState.zeros(inner.spec))
    assert len(stream(shared.step, inner.spec, 4, seed=0)) == 4


def test_many_sessions_that_share_runs_are_answered_as_if_each_were_alone(
    tiny_weights: Path, config: ModelConfig
) -> None:
    backend = TorchBackend(tiny_weights / "tiny.safetensors", config, rows=ROWS)
    shared = Batching(backend)
    assert (shared.name, shared.spec) == ("torch", backend.spec)
    alone = [stream(backend.step, backend.spec, 5, seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        crowd = list(pool.map(lambda seed: stream(shared.step, backend.spec, 5, seed), range(6)))
    # On a processor the place of a row in a run shows in the last bit of a few numbers.
    for one, other in zip(chain(*alone), chain(*crowd), strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=1e-6)


def test_a_detour_has_its_steps_run_by_somebody_else(runtimes: dict[str, Backend]) -> None:
    backend, calls = runtimes["openvino"], []

    def run(work: Callable[[], Answer]) -> Answer:
        calls.append(work)
        return work()

    detour = Detour(backend, run)
    assert (detour.name, detour.spec) == (backend.name, backend.spec)
    first = (image(1), state(backend.spec, 1))
    assert bits(detour.step(*first)) == bits(backend.step(*first))
    assert len(calls) == 1


def test_files_that_are_no_step_are_refused(tmp_path: Path, config: ModelConfig) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"broken\.onnx is not an exported step"):
        OnnxRuntimeBackend(broken, threads=1)
    with pytest.raises(WeightsError, match=r"broken\.onnx does not fit"):
        TorchBackend(broken, config)


def test_parameters_of_another_shape_are_refused(tiny_weights: Path) -> None:
    with pytest.raises(WeightsError, match="does not fit"):
        TorchBackend(tiny_weights / "tiny.safetensors", ModelConfig())


def test_a_device_that_is_not_installed_is_refused(tiny_weights: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(WeightsError, match="cannot run on cuda"):
        OnnxRuntimeBackend(tiny_weights / "tiny.onnx", threads=1, device="cuda")


def test_nobody_is_told_that_openvino_is_used(tmp_path: Path) -> None:
    # Its telemetry keeps a number for each user in the home folder, and is silent under CI anyway.
    talks = {"CI", "JENKINS_URL", "TF_BUILD"}
    environment = {name: value for name, value in os.environ.items() if name not in talks}
    asked = "import sys, server.app; sys.exit('openvino_telemetry.backend' in sys.modules)"
    told = {**environment, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", asked], env=told, check=True)
    assert not list(tmp_path.rglob("*"))
