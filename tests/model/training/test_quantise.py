"""A step in eight bits: what is quantised and how, and that two runtimes read it alike."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from model.backends.base import Backend
from model.backends.onnxruntime import OnnxRuntimeBackend
from model.backends.openvino import OpenVinoBackend
from model.errors import FrameError, WeightsError
from model.frame import Frame
from model.predictor import load_predictor
from model.state import MemoryState
from model.training.export import ship
from model.weights import load_info, sha256_of
from tests.model.training.hearts import write_index, write_patient


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stills")
    for name, split, seed in (("patient0001", "train", 1), ("patient0002", "valid", 2)):
        write_patient(folder / split, name, seed)
    write_index(
        folder, [("valid", "patient0002", "ED", "0.8"), ("valid", "patient0002", "ES", "0.8")]
    )
    return folder


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, stills: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("weights")
    entry = ship(tiny_checkpoint, made, "tiny", "0.1.0", calibration=stills)
    assert entry["int8"] == {
        "file": "tiny-int8.onnx",
        "sha256": sha256_of(made / "tiny-int8.onnx"),
    }
    return made


Weights = dict[str, tuple[NDArray[np.float32], NDArray[np.float32] | None]]


def convolutions(path: Path) -> Weights:
    """Of every convolution its weights, and the step between two values where it is quantised."""
    graph = onnx.load(path).graph
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node}
    found: Weights = {}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight = node.input[1]
        if weight in stored:
            found[node.name] = stored[weight], None
            continue
        source = made_by[weight]
        assert source.op_type == "DequantizeLinear"
        values, steps, zeros = (stored[name] for name in source.input)
        assert values.dtype == np.int8
        assert not zeros.any()
        steps_C = steps.reshape(-1, *[1] * (values.ndim - 1))
        found[node.name] = values.astype(np.float32) * steps_C, steps_C
    return found


def test_every_convolution_but_the_first_is_rounded_to_eight_bits_of_its_channel(
    folder: Path,
) -> None:
    exact, rounded = (convolutions(folder / f"tiny{end}.onnx") for end in ("", "-int8"))
    assert exact.keys() == rounded.keys()
    whole = [name for name, (_, steps) in rounded.items() if steps is None]
    assert whole == [next(iter(exact))]
    for name, (weights, steps_C) in rounded.items():
        wanted = exact[name][0]
        if steps_C is None:
            np.testing.assert_array_equal(weights, wanted)
            continue
        # 127 steps reach the largest weight of a channel, and rounding errs by half a step.
        largest_C = np.abs(wanted).max(axis=tuple(range(1, wanted.ndim)), keepdims=True)
        np.testing.assert_allclose(steps_C, largest_C / 127, rtol=1e-2)
        assert (np.abs(weights - wanted) <= 0.505 * steps_C + 1e-7).all()


def test_what_a_step_is_stays_written_in_it(folder: Path) -> None:
    exact, rounded = (onnx.load(folder / f"tiny{end}.onnx") for end in ("", "-int8"))
    assert rounded.metadata_props == exact.metadata_props
    assert [each.name for each in rounded.graph.input] == ["image", "memory", "sensory"]
    assert rounded.graph.output == exact.graph.output
    assert [each.domain for each in rounded.opset_import] == [""]


def answers(backend: Backend, frames_THW: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    state, found = MemoryState.zeros(backend.spec), []
    for image_HW in frames_THW:
        probabilities, _, state = backend.step(image_HW[None, None], state)
        found.append(probabilities)
    return found


def test_two_runtimes_answer_alike_and_near_to_full_precision(folder: Path) -> None:
    info = load_info(folder=folder)
    assert info.quantised is not None
    side = info.network_size
    frames_THW = np.random.default_rng(5).random((4, side, side), np.float32)
    ways: tuple[Backend, ...] = (
        OpenVinoBackend(info.path, threads=1, streams=1, precision="f32"),
        OpenVinoBackend(info.quantised, threads=1, streams=1, precision="f32"),
        OnnxRuntimeBackend(info.quantised, threads=1),
    )
    exact, first, second = (np.stack(answers(way, frames_THW)) for way in ways)
    apart, off = np.abs(first - second), np.abs(first - exact)
    # Values that lie on the border of two steps fall to either side, and move those after them: on
    # some processors more of them than on others.
    assert apart.mean() < 0.5 * off.mean()
    assert 0.0 < off.mean() < 0.02


def test_more_threads_change_no_bit_in_eight_bits(folder: Path) -> None:
    path = load_info(folder=folder).quantised
    assert path is not None
    frames_THW = np.random.default_rng(5).random((2, 48, 48), np.float32)
    found = [
        np.stack(answers(OpenVinoBackend(path, threads=n, streams=1), frames_THW)).tobytes()
        for n in (1, 2, 4)
    ]
    assert len(set(found)) == 1


def test_eight_bits_are_served_where_they_are_asked_for(folder: Path) -> None:
    still = np.random.default_rng(6).integers(0, 255, (60, 60)).astype(np.uint8)
    masks = {}
    for precision in ("f32", "int8"):
        predictor = load_predictor(folder=folder, precision=precision)
        assert predictor.choice is not None
        assert predictor.choice.precision == precision
        assert predictor.model.sha256 == load_info(folder=folder).sha256
        mask, _ = predictor.step(Frame(0, None, still), predictor.start())
        masks[precision] = mask.probabilities_NHW
    assert (masks["f32"] != masks["int8"]).any()
    second = load_predictor(folder=folder, backend="onnxruntime", precision="int8")
    assert second.choice is not None
    assert second.choice.precision == "int8"


def test_a_damaged_file_in_eight_bits_is_named(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "weights")
    path = copied / "tiny-int8.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"tiny-int8\.onnx is damaged"):
        load_info(folder=copied)
    path.unlink()
    with pytest.raises(WeightsError, match=r"tiny-int8\.onnx is missing"):
        load_info(folder=copied)


def test_what_cannot_be_calibrated_leaves_the_folder_as_it_is(
    tiny_checkpoint: Path, stills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "weights"
    shutil.copytree(stills / "valid", data / "valid")
    with pytest.raises(FrameError, match="no training patients"):
        ship(tiny_checkpoint, out, "tiny", "1", calibration=data)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="needs onnxruntime, which is not here"):
        ship(tiny_checkpoint, out, "tiny", "1", calibration=stills)
    assert not out.exists()
