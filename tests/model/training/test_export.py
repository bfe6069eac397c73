import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from model.backends.base import IMAGE, PRESENCE, PROBABILITIES, STATE_OUT
from model.backends.openvino import OpenVinoBackend
from model.config import ENCODERS, ModelConfig
from model.errors import WeightsError
from model.network import LiveNetwork, NetworkState
from model.predictor import load_predictor
from model.state import MemoryState
from model.training.export import (
    LICENCE,
    TwoPartConvolution,
    load_checkpoint,
    ship,
    with_two_part_stem,
    write_entry,
)
from model.weights import load_info, read_manifest, sha256_of

FRAMES = 6


def torch_answers(checkpoint: Path, images: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Probabilities, presence and both states after every frame, in PyTorch."""
    network = load_checkpoint(checkpoint)
    state = network.initial_state(1)
    answers: list[tuple[np.ndarray, ...]] = []
    with torch.no_grad():
        for image in images:
            output, state = network.step(torch.from_numpy(image)[None, None], state)
            answers.append(
                (
                    output.logits_BNHW.softmax(dim=1)[0, 1:].numpy(),
                    torch.sigmoid(output.presence_B).numpy(),
                    state.memory_BMKV.numpy(),
                    state.sensory_BCHW.numpy(),
                )
            )
    return answers


@pytest.fixture(scope="module")
def images(tiny_config: ModelConfig) -> np.ndarray:
    side = tiny_config.network_size
    return np.random.default_rng(3).random((FRAMES, side, side)).astype(np.float32)


def test_openvino_answers_as_torch_does_frame_after_frame(
    tiny_checkpoint: Path, tiny_weights: Path, images: np.ndarray
) -> None:
    backend = OpenVinoBackend(tiny_weights / "tiny.onnx", threads=1, streams=1, precision="f32")
    state = MemoryState.zeros(backend.spec)
    wanted = torch_answers(tiny_checkpoint, images)
    for image, answer in zip(images, wanted, strict=True):
        probabilities, presence, state = backend.step(image[None, None], state)
        assert presence == pytest.approx(float(answer[1][0]), abs=1e-4)
        for found, expected in zip(
            (probabilities, *state.arrays), (answer[0], *answer[2:]), strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(wanted[-1][0]) > 0.1  # the answers are not all alike


def test_a_second_runtime_answers_as_torch_does(
    tiny_checkpoint: Path, tiny_weights: Path, images: np.ndarray
) -> None:
    session = onnxruntime.InferenceSession(
        tiny_weights / "tiny.onnx", providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    state = {each.name: np.zeros(each.shape, np.float32) for each in session.get_inputs()[1:]}
    outputs = [PROBABILITIES, PRESENCE, *(STATE_OUT + name for name in names[1:])]
    for image, answer in zip(images, torch_answers(tiny_checkpoint, images), strict=True):
        found = session.run(outputs, {IMAGE: image[None, None], **state})
        np.testing.assert_allclose(found[0][0], answer[0], atol=1e-4)
        for each, expected in zip(found[1:], answer[1:], strict=True):
            np.testing.assert_allclose(each, expected, atol=1e-4)
        state = dict(zip(names[1:], found[2:], strict=True))


def test_the_state_goes_in_and_comes_out_by_name(
    tiny_weights: Path, tiny_config: ModelConfig
) -> None:
    proto = onnx.load(tiny_weights / "tiny.onnx")
    assert [each.name for each in proto.graph.input] == ["image", "memory", "sensory"]
    assert [each.name for each in proto.graph.output] == [
        "probabilities", "presence", "next_memory", "next_sensory",
    ]  # fmt: skip
    metadata = {each.key: each.value for each in proto.metadata_props}
    assert ModelConfig.from_json(json.loads(metadata["config"])) == tiny_config
    assert metadata["parameters_sha256"] == sha256_of(tiny_weights / "tiny.safetensors")


def test_a_neighbour_in_an_exported_batch_changes_no_bit_even_when_it_is_no_number(
    tiny_checkpoint: Path, tmp_path: Path, images: np.ndarray
) -> None:
    entry = ship(tiny_checkpoint, tmp_path, "tiny", "1", batches=(3,))
    assert entry["batches"] == {
        "3": {"file": "tiny-batch3.onnx", "sha256": sha256_of(tmp_path / "tiny-batch3.onnx")}
    }
    session = onnxruntime.InferenceSession(
        tmp_path / "tiny-batch3.onnx", providers=["CPUExecutionProvider"]
    )
    answers = []
    for neighbour in (images[1], np.full_like(images[0], np.nan), np.zeros_like(images[0])):
        batch = np.stack([neighbour, images[0], neighbour])[:, None]
        state = {
            each.name: np.full(each.shape, neighbour[0, 0], np.float32)
            for each in session.get_inputs()[1:]
        }
        for each in state.values():
            each[1] = 0.25
        answers.append([found[1].tobytes() for found in session.run(None, {IMAGE: batch, **state})])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("batch", [1, 0, -2])
def test_a_batch_that_needs_no_file_of_its_own_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, batch: int
) -> None:
    with pytest.raises(WeightsError, match="at least 2"):
        ship(tiny_checkpoint, tmp_path, "tiny", "1", batches=(batch,))
    assert list(tmp_path.iterdir()) == []


def test_an_exported_file_says_nothing_of_the_machine_it_was_made_on(tiny_weights: Path) -> None:
    text = (tiny_weights / "tiny.onnx").read_bytes()
    for word in (b".py", str(Path.home()).encode(), str(Path(__file__).parents[3]).encode()):
        assert word not in text


def test_the_manifest_names_files_checksums_and_licence(
    tiny_weights: Path, tiny_checkpoint: Path, tiny_config: ModelConfig
) -> None:
    entry = read_manifest(tiny_weights)["models"]["tiny"]
    assert entry["version"] == "0.1.0"
    assert entry["licence"] == LICENCE
    assert entry["sha256"] == sha256_of(tiny_weights / "tiny.onnx")
    assert entry["parameters_sha256"] == sha256_of(tiny_weights / entry["parameters"])
    network = load_checkpoint(tiny_checkpoint)
    assert entry["parameter_count"] == sum(p.numel() for p in network.parameters())
    assert load_info(folder=tiny_weights).config == tiny_config
    saved = load_file(tiny_weights / entry["parameters"])
    wanted = network.state_dict()
    assert saved.keys() == wanted.keys()
    assert all(torch.equal(saved[name], value) for name, value in wanted.items())


def test_whoever_may_read_a_users_files_may_read_what_was_exported(tiny_weights: Path) -> None:
    written = tiny_weights / "as-any-file"
    written.touch()
    modes = {path.name: path.stat().st_mode for path in tiny_weights.iterdir()}
    assert set(modes.values()) == {written.stat().st_mode}
    written.unlink()


def test_what_was_shipped_can_be_served_and_answers_its_self_test(tiny_weights: Path) -> None:
    predictor = load_predictor("tiny", folder=tiny_weights)
    assert len(predictor.model.self_test) == 9
    assert predictor.self_test()


def test_a_second_model_joins_the_manifest_and_the_default_stays(tmp_path: Path) -> None:
    write_entry(tmp_path, "first", {"version": "1"})
    write_entry(tmp_path, "second", {"version": "2"})
    write_entry(tmp_path, "first", {"version": "3"})
    assert read_manifest(tmp_path) == {
        "default": "first",
        "models": {"first": {"version": "3"}, "second": {"version": "2"}},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_broken_manifest_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        write_entry(tmp_path, "first", {"version": "1"})
    assert (tmp_path / "manifest.json").read_text() == "{"


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", "list", "other"])
def test_what_is_no_checkpoint_is_refused_and_named(
    tmp_path: Path, content: bytes | str | None
) -> None:
    path = tmp_path / "checkpoint.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "list":
        torch.save([1, 2], path)
    elif content == "other":
        torch.save({"model_config": json.dumps({"network_size": 48}), "average": {}}, path)
    with pytest.raises(WeightsError, match=r"checkpoint\.pt is not a checkpoint") as refusal:
        load_checkpoint(path)
    assert "weights_only" not in refusal.value.message


def test_weights_that_do_not_fit_their_shape_are_refused_and_the_first_is_named(
    tiny_checkpoint: Path, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    saved = torch.load(tiny_checkpoint, weights_only=True)
    wider = replace(tiny_config, widths=(4, 8, 12, 16))
    saved["model_config"] = json.dumps(wider.to_json())
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match=r"'encoder\.down8\.0\.weight' has shape \(8, 8, 3, 3\)"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_shape_of_the_future_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    saved = torch.load(tiny_checkpoint, weights_only=True)
    saved["model_config"] = json.dumps({"layers": 99})
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match="layers"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_checkpoint_serves_its_average_in_evaluation_mode(tiny_checkpoint: Path) -> None:
    network = load_checkpoint(tiny_checkpoint)
    assert not network.training
    image = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    state: NetworkState = network.initial_state(1)
    with torch.no_grad():
        one, other = network.step(image, state)[0], network.step(image, state)[0]
    assert torch.equal(one.logits_BNHW, other.logits_BNHW)


def test_the_parts_of_the_first_convolution_hold_twice_the_bits_of_bfloat16() -> None:
    torch.manual_seed(5)
    convolution, norm = nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8).eval()
    for values in (norm.weight, norm.bias, norm.running_mean):
        assert values is not None
        nn.init.normal_(values)
    exact = TwoPartConvolution(convolution, norm)
    high, low = exact.weight.chunk(2, dim=1)
    assert torch.equal(high, high.bfloat16().float())
    # bfloat16 has eight significant bits: half a unit of the last one is 2^-9 of a value at most.
    rounded = high + low.bfloat16().float()
    whole = high + low
    assert bool(((rounded - whole).abs() <= whole.abs() * 2.0**-17).all())
    assert bool(((high - whole).abs() > whole.abs() * 2.0**-17).any())
    image = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(exact(image), norm(convolution(image)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_network_with_its_first_convolution_in_two_parts_answers_the_same(
    tiny_config: ModelConfig, encoder: str
) -> None:
    torch.manual_seed(6)
    network = LiveNetwork(replace(tiny_config, encoder=encoder)).eval()
    names = set(network.state_dict())
    side = tiny_config.network_size
    image, state = torch.rand(1, 1, side, side), network.initial_state(1)
    with torch.no_grad():
        wanted, _ = network.step(image, state)
        found, _ = with_two_part_stem(network).step(image, state)
    torch.testing.assert_close(found.logits_BNHW, wanted.logits_BNHW, atol=1e-5, rtol=1e-5)
    assert set(network.state_dict()) == names, "the network itself stays as it is"
