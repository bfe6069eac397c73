"""The live network as a stream: clip equals steps, sessions do not mix, its state is bounded."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.config import ModelConfig
from model.delta import memory_bound
from model.network import LiveNetwork, NetworkState, SensoryUpdate, StepOutput, position_code
from model.weights import WEIGHTS_DIR, read_manifest

SMALL = ModelConfig(
    network_size=48, widths=(4, 8, 8, 16), key_width=8, heads=2, value_width=4, sensory_width=8
)
COUNTERS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> LiveNetwork:
    """Seeded weights strong enough that memory and sensory map matter."""
    torch.manual_seed(0)
    network = LiveNetwork(SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.requires_grad_(False).eval()


def cines(sessions: int = 2, frames: int = 5) -> Tensor:
    """images_BTHW of noise."""
    random = torch.Generator().manual_seed(1)
    side = SMALL.network_size
    return torch.rand(sessions, frames, side, side, generator=random)


def run(network: LiveNetwork, images_BTHW: Tensor) -> tuple[list[StepOutput], NetworkState]:
    """Every output and the last state, step by step."""
    state = network.initial_state(len(images_BTHW))
    outputs = []
    for t in range(images_BTHW.shape[1]):
        output, state = network.step(images_BTHW[:, t : t + 1], state)
        outputs.append(output)
    return outputs, state


def test_step_by_step_equals_the_whole_clip(network: LiveNetwork) -> None:
    images_BTHW = cines()
    outputs, state = run(network, images_BTHW)
    logits_BTNHW, presence_BT, clip_state = network.clip(images_BTHW, network.initial_state(2))
    stepped_BTNHW = torch.stack([output.logits_BNHW for output in outputs], dim=1)
    stepped_BT = torch.stack([output.presence_B for output in outputs], dim=1)
    torch.testing.assert_close(logits_BTNHW, stepped_BTNHW, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(presence_BT, stepped_BT, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(clip_state, state, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_clip_goes_on_where_another_stopped(network: LiveNetwork) -> None:
    images_BTHW = cines()
    whole_BTNHW, _, end = network.clip(images_BTHW, network.initial_state(2))
    _, _, middle = network.clip(images_BTHW[:, :3], network.initial_state(2))
    rest_BTNHW, _, other_end = network.clip(images_BTHW[:, 3:], middle)
    torch.testing.assert_close(rest_BTNHW, whole_BTNHW[:, 3:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other_end, end, atol=1e-5, rtol=0)


def test_later_frames_change_nothing_earlier(network: LiveNetwork) -> None:
    images_BTHW = cines()
    changed_BTHW = torch.cat([images_BTHW[:, :3], 1 - images_BTHW[:, 3:]], dim=1)
    logits_BTNHW, presence_BT, _ = network.clip(images_BTHW, network.initial_state(2))
    changed_BTNHW, changed_BT, _ = network.clip(changed_BTHW, network.initial_state(2))
    assert torch.equal(changed_BTNHW[:, :3], logits_BTNHW[:, :3])
    assert torch.equal(changed_BT[:, :3], presence_BT[:, :3])
    assert not torch.equal(changed_BTNHW[:, 3], logits_BTNHW[:, 3])


@pytest.mark.parametrize("part", NetworkState._fields)
def test_a_frame_is_drawn_with_what_earlier_frames_left(network: LiveNetwork, part: str) -> None:
    images_BTHW = cines()
    _, state = run(network, images_BTHW[:, :4])
    forgotten = state._replace(**{part: torch.zeros_like(getattr(state, part))})
    output, _ = network.step(images_BTHW[:, 4:], state)
    other, _ = network.step(images_BTHW[:, 4:], forgotten)
    assert (output.logits_BNHW - other.logits_BNHW).abs().max().item() > 1e-2


@pytest.mark.parametrize("value", [0.5, 1e6, torch.nan])
def test_a_neighbour_in_the_batch_changes_nothing(network: LiveNetwork, value: float) -> None:
    images_BTHW = cines()
    outputs, state = run(network, images_BTHW)
    beside = torch.stack([images_BTHW[0], torch.full_like(images_BTHW[1], value)])
    others, other_state = run(network, beside)
    for output, other in zip(outputs, others, strict=True):
        assert torch.equal(other.logits_BNHW[0], output.logits_BNHW[0])
        assert torch.equal(other.presence_B[0], output.presence_B[0])
    for found, wanted in zip(other_state, state, strict=True):
        assert torch.equal(found[0], wanted[0])


def test_a_step_leaves_its_inputs_alone(network: LiveNetwork) -> None:
    images_BTHW = cines()
    _, state = run(network, images_BTHW[:, :2])
    image_B1HW = images_BTHW[:, 2:3].clone()
    before = [image_B1HW.clone(), *(tensor.clone() for tensor in state)]
    network.step(image_B1HW, state)
    assert all(map(torch.equal, before, (image_B1HW, *state)))


@pytest.mark.parametrize("loudness", [0.3, 1.0])
@pytest.mark.parametrize("grey", [0.0, 1.0, None], ids=["black", "white", "noise"])
def test_the_state_stays_inside_its_bounds(loudness: float, grey: float | None) -> None:
    torch.manual_seed(0)
    network = LiveNetwork(SMALL).requires_grad_(False).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=loudness)
    images_BTHW = cines(1, 30).round() if grey is None else torch.full((1, 30, 48, 48), grey)
    bound = memory_bound(SMALL.key_width, SMALL.value_width, SMALL.alpha_max)
    state = network.initial_state(1)
    for t in range(images_BTHW.shape[1]):
        _, state = network.step(images_BTHW[:, t : t + 1], state)
        assert state.sensory_BCHW.abs().max().item() <= 1
        assert state.memory_BMKV.norm(dim=(2, 3)).max().item() <= bound


def test_the_sensory_map_never_leaves_its_range_even_from_its_edge() -> None:
    torch.manual_seed(0)
    update = SensoryUpdate(3, 5).requires_grad_(False)
    for parameter in update.parameters():
        torch.nn.init.normal_(parameter, std=10.0)
    sensory_BCHW = torch.randn(2, 5, 6, 6).sign()
    for _ in range(50):
        sensory_BCHW = update(100 * torch.randn(2, 3, 6, 6), sensory_BCHW)
        assert sensory_BCHW.abs().max().item() <= 1


def test_keys_and_queries_sum_to_one_and_gates_stay_in_their_ranges(network: LiveNetwork) -> None:
    random = torch.Generator().manual_seed(2)
    f16_BCHW = 100 * torch.randn(4, SMALL.widths[3], 3, 3, generator=random)
    sensory_BCHW = torch.randn(4, SMALL.sensory_width, 3, 3, generator=random).tanh()
    for address_BKP in network.address(f16_BCHW, sensory_BCHW):
        assert bool((address_BKP >= 0).all())
        torch.testing.assert_close(address_BKP.sum(dim=1), torch.ones(4, 9))
    alpha_BM, beta_BM = network.gates(f16_BCHW, sensory_BCHW)
    assert bool(((alpha_BM >= 0) & (alpha_BM <= SMALL.alpha_max)).all())
    assert bool(((beta_BM >= 0) & (beta_BM <= 1)).all())


def test_every_place_of_the_grid_has_its_own_code() -> None:
    code_PC = position_code(32, 9)[0].flatten(1).T
    distance_PP = torch.cdist(code_PC, code_PC) + 10 * torch.eye(81)
    assert distance_PP.min().item() > 0.1


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    network = LiveNetwork(SMALL).train()
    logits_BTNHW, presence_BT, _ = network.clip(cines(), network.initial_state(2))
    loss = (logits_BTNHW * torch.randn_like(logits_BTNHW)).sum() + presence_BT.square().sum()
    loss.backward()
    dead = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert dead == []


def test_the_network_is_the_one_whose_weights_ship() -> None:
    for entry in read_manifest()["models"].values():
        network = LiveNetwork(ModelConfig.from_json(entry["config"]))
        assert sum(p.numel() for p in network.parameters()) == entry["parameter_count"]
        shapes = shapes_in(WEIGHTS_DIR / entry["parameters"])
        assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == shapes
        learned = [shape for key, shape in shapes.items() if not key.endswith(COUNTERS)]
        assert sum(map(math.prod, learned)) == entry["parameter_count"]


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a safetensors file, read off its header alone."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: tuple(e["shape"]) for key, e in header.items() if key != "__metadata__"}
