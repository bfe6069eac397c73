"""Which backend is chosen: bits follow from the machine, streams from a measurement."""

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openvino import Core

import model.backends.choice
import model.backends.openvino
from model.backends.choice import BackendName, Choice, Trial, choose
from model.backends.openvino import OpenVinoBackend, gains_by_int8
from model.errors import WeightsError
from model.predictor import load_predictor
from model.state import MemoryState
from model.weights import load_info, parameters_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.backends.choice, "NVIDIA_DEVICE", Path("/nowhere"))


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torch"])
def test_every_backend_can_be_set_and_passes_the_self_test(tiny_weights: Path, name: str) -> None:
    predictor = load_predictor(backend=name, folder=tiny_weights, threads=2)  # type: ignore[arg-type]
    assert predictor.choice is not None
    assert (predictor.backend.name, predictor.choice.backend) == (name, name)
    assert "as set" in predictor.choice.why
    assert predictor.self_test()


Speeds = dict[int, tuple[float, float]]
"""By number of streams: frames a second of all, and milliseconds of a lone frame."""


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(
    ("speeds", "streams", "alone_threads"),
    [
        ({4: (100.0, 40.0), 2: (90.0, 22.0), 1: (50.0, 13.0)}, 4, 4),
        ({4: (52.0, 4.0), 2: (51.0, 4.0), 1: (50.0, 4.0)}, 4, 1),
        ({2: (50.0, 9.0), 1: (51.0, 8.0)}, 2, 1),
        ({2: (50.0, 9.0), 1: (51.0, 7.0)}, 2, 2),
        ({2: (50.0, 9.0), 1: (99.0, 6.0)}, 1, 2),
    ],
)
def test_a_frame_gets_more_threads_where_that_is_worth_while(
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    speeds: Speeds,
    streams: int,
    alone_threads: int,
) -> None:
    monkeypatch.setattr(
        model.backends.choice, "measure", lambda _backend, _side, count: speeds[count]
    )
    _, choice = choose(load_info(folder=tiny_weights), threads=max(speeds), streams=None)
    fps = speeds[streams][0]
    assert (choice.backend, choice.streams, choice.fps) == ("openvino", streams, fps)
    assert choice.alone_threads == alone_threads
    assert [trial.streams for trial in choice.trials] == list(speeds)
    assert f"{fps:.0f} frames/s on {streams}" in choice.why
    assert f"threads for it: {alone_threads}" in choice.why


@pytest.mark.usefixtures("without_gpu")
def test_of_several_rounds_the_best_counts(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([(40.0, 9.0), (70.0, 5.0), (60.0, 6.0)])
    monkeypatch.setattr(model.backends.choice, "measure", lambda *_: next(found))
    _, choice = choose(load_info(folder=tiny_weights), threads=1, streams=None)
    assert (choice.trials[0].fps, choice.trials[0].alone_ms) == (70.0, 5.0)


def test_the_threads_of_a_lone_frame_change_no_bit_of_an_answer(tiny_weights: Path) -> None:
    info = load_info(folder=tiny_weights)
    side = info.network_size
    image_11HW = np.linspace(0, 1, side * side, dtype=np.float32).reshape(1, 1, side, side)
    answers = []
    for alone_threads in (1, 2, 4):
        backend = OpenVinoBackend(info.path, threads=4, streams=4, alone_threads=alone_threads)
        answer = backend.step(image_11HW, MemoryState.zeros(backend.spec))
        answers.append(answer[0].tobytes())
    assert len(set(answers)) == 1


@pytest.mark.usefixtures("without_gpu")
def test_streams_are_really_measured(tiny_weights: Path) -> None:
    backend, choice = choose(load_info(folder=tiny_weights), threads=1, streams=None)
    assert backend.name == "openvino"
    assert choice.fps is not None
    assert choice.fps > 1.0
    assert choice.trials[0].alone_ms > 0.0


def test_what_was_not_measured_is_not_told() -> None:
    trial = Trial("openvino", "f32", 2, 1, 50.0, 9.0)
    assert Choice("openvino", "f32", 2, 2, 2, (), "as set").fps is None
    assert Choice("openvino", "f32", 2, 2, 2, (trial,), "measured").fps is None


def test_with_a_gpu_and_torch_the_gpu_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__)
    monkeypatch.setattr(model.backends.choice, "NVIDIA_DEVICE", here)
    assert model.backends.choice._for_this_machine()[0] == "torch"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    name, why = model.backends.choice._for_this_machine()
    assert (name, "torch is not installed" in why) == ("openvino", True)


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_precision_that_a_backend_has_not_is_refused(tiny_weights: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=f"the backend {name} runs at f32"):
        load_predictor(backend=name, folder=tiny_weights, precision="f16")  # type: ignore[arg-type]


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("gains", [True, False])
@pytest.mark.parametrize("has_file", [True, False])
def test_eight_bits_serve_where_the_processor_gains_by_them(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, gains: bool, has_file: bool
) -> None:
    monkeypatch.setattr(model.backends.choice, "gains_by_int8", lambda: gains)
    info = load_info(folder=tiny_weights)
    if has_file:
        info = replace(info, quantised=info.path)
    _, choice = choose(info)
    assert (choice.precision == "int8") == (gains and has_file)
    _, choice = choose(info, precision="f32")
    assert choice.precision == "f32"


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_eight_bits_that_a_model_has_not_are_refused(tiny_weights: Path, name: BackendName) -> None:
    with pytest.raises(WeightsError, match="tiny has no file in int8"):
        load_predictor(backend=name, folder=tiny_weights, precision="int8")


@pytest.mark.parametrize(
    ("found", "flags", "gains"),
    [
        (["FP32", "INT8", "BIN"], "avx2 fma", True),
        (["FP32", "BF16", "INT8"], "avx512f avx512_vnni avx512_bf16", True),
        (["FP32", "BF16", "INT8"], "avx512f avx512_bf16 amx_bf16 amx_tile amx_int8", False),
        (["FP32", "BF16", "INT8"], None, False),
        (["FP32", "FP16", "INT8"], "asimd fphp", False),
        (["FP32", "BIN"], "avx2 fma", False),
    ],
)
def test_what_the_processor_does_best_follows_from_what_it_can(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    found: list[str],
    flags: str | None,
    gains: bool,
) -> None:
    monkeypatch.setattr(Core, "get_property", lambda *_: found)
    told = tmp_path / "cpuinfo"
    if flags is not None:
        told.write_text(f"model name\t: a processor\nflags\t\t: {flags} smap\n")
    monkeypatch.setattr(model.backends.openvino, "CPUINFO", told)
    assert gains_by_int8() == gains


def test_a_backend_that_is_not_installed_is_named(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "model.backends.onnxruntime", raising=False)
    with pytest.raises(WeightsError, match="needs onnxruntime, which is not here"):
        load_predictor(backend="onnxruntime", folder=tiny_weights)


@pytest.mark.usefixtures("without_gpu")
def test_serving_on_a_processor_loads_neither_torch_nor_onnxruntime(tiny_weights: Path) -> None:
    program = f"""
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from model import load_predictor
load_predictor(folder=Path({str(tiny_weights)!r}), streams=None, backend="openvino")
assert not {{"torch", "onnxruntime"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_first_steps_of_a_process_may_come_from_several_threads(tiny_weights: Path) -> None:
    program = f"""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from model.predictor import load_predictor, self_test_frame
predictor = load_predictor(folder=Path({str(tiny_weights)!r}), backend="openvino", streams=4)
together = Barrier(4)
def first(_):
    together.wait()
    return predictor.step(self_test_frame(0), predictor.start())[0].presence
with ThreadPoolExecutor(4) as pool:
    assert len(set(pool.map(first, range(4)))) == 1
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize(("threads", "streams"), [(1, 1), (3, 2), (10, 10)])
def test_as_many_frames_at_once_as_there_are_streams(
    tiny_weights: Path, threads: int, streams: int
) -> None:
    backend = OpenVinoBackend(
        load_info(folder=tiny_weights).path, threads=threads, streams=streams, alone_threads=1
    )
    with ExitStack() as lent:
        requests = {id(lent.enter_context(backend._request())) for _ in range(streams)}
        assert len(requests) == streams
        assert backend._crowd.empty()


def test_damaged_or_missing_parameters_are_refused(tiny_weights: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "tiny.onnx"):
        (tmp_path / name).write_bytes((tiny_weights / name).read_bytes())
    info = load_info(folder=tmp_path)
    with pytest.raises(WeightsError, match="parameters of tiny are missing"):
        parameters_of(info)
    (tmp_path / "tiny.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="damaged"):
        parameters_of(info)
