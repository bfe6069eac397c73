"""The published network as a stream: what a step may depend on, and what it leaves alone."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.base import AlphaRule, BaseConfig, BaseNetwork, BaseState
from model.base.network import DECAY_RATE_MAX, DECAY_STEP_RANGE, initial_decay
from model.errors import StateError, WeightsError
from tests.model.base import golden
from tests.model.base.conftest import GoldenNetwork

RULES = pytest.mark.parametrize("rule", AlphaRule)
SIDE = 64


@pytest.fixture
def network(golden_network: GoldenNetwork) -> BaseNetwork:
    return golden_network(AlphaRule.OFFICIAL, torch.float32)


def cines(sessions: int, frames: int) -> Tensor:
    """images_BTHW, every session at another point of the beat."""
    cine_1THW = golden.to_images(golden.cine(sessions * frames, SIDE, SIDE), torch.float32)
    return cine_1THW[0].unflatten(0, (sessions, frames))


def run(network: BaseNetwork, images_BTHW: Tensor) -> tuple[Tensor, BaseState]:
    """logits_BTNHW step by step, and the last state."""
    state = network.initial_state(len(images_BTHW), SIDE, SIDE)
    logits = []
    for t in range(images_BTHW.shape[1]):
        output, state = network.step(images_BTHW[:, t : t + 1], state)
        logits.append(output.logits_BNHW)
    return torch.stack(logits, dim=1), state


def assert_same_state(one: BaseState, other: BaseState, atol: float = 0.0) -> None:
    for found, wanted in zip(one.tensors(), other.tensors(), strict=True):
        torch.testing.assert_close(found, wanted, atol=atol, rtol=atol)


@RULES
def test_step_by_step_equals_the_whole_clip(rule: AlphaRule, golden_network: GoldenNetwork) -> None:
    network, images_BTHW = golden_network(rule, torch.float32), cines(2, 4)
    logits_BTNHW, state = run(network, images_BTHW)
    outputs, clip_state = network.clip(images_BTHW)
    clip_BTNHW = torch.stack([output.logits_BNHW for output in outputs], dim=1)
    torch.testing.assert_close(clip_BTNHW, logits_BTNHW, atol=1e-5, rtol=0)
    assert_same_state(clip_state, state, atol=1e-5)


def test_a_clip_goes_on_where_another_stopped(network: BaseNetwork) -> None:
    images_BTHW = cines(1, 4)
    whole, _ = network.clip(images_BTHW)
    _, state = network.clip(images_BTHW[:, :2])
    rest, _ = network.clip(images_BTHW[:, 2:], state)
    torch.testing.assert_close(rest[-1].logits_BNHW, whole[-1].logits_BNHW, atol=1e-5, rtol=0)


def test_later_frames_change_nothing_earlier(network: BaseNetwork) -> None:
    images_BTHW = cines(1, 4)
    outputs, _ = network.clip(images_BTHW)
    changed, _ = network.clip(torch.cat([images_BTHW[:, :2], 1 - images_BTHW[:, 2:]], dim=1))
    assert torch.equal(changed[1].logits_BNHW, outputs[1].logits_BNHW)
    assert not torch.equal(changed[2].logits_BNHW, outputs[2].logits_BNHW)


@pytest.mark.parametrize("value", [0.7, torch.nan])
def test_a_neighbour_in_the_batch_changes_nothing(network: BaseNetwork, value: float) -> None:
    images_BTHW = cines(2, 3)
    logits_BTNHW, state = run(network, images_BTHW)
    other_BTNHW, other_state = run(
        network, torch.stack([images_BTHW[0], torch.full_like(images_BTHW[1], value)])
    )
    assert torch.equal(other_BTNHW[0], logits_BTNHW[0])
    for found, wanted in zip(other_state.tensors(), state.tensors(), strict=True):
        assert torch.equal(found[0], wanted[0])


def test_a_session_may_begin_beside_one_that_goes_on(network: BaseNetwork) -> None:
    images_BTHW = cines(2, 3)
    fresh = network.initial_state(2, SIDE, SIDE)
    _, old = run(network, images_BTHW)
    mixed = BaseState(
        *(torch.stack([a[0], b[1]]) for a, b in zip(old.tensors(), fresh.tensors(), strict=True))
    )
    image_BCHW = images_BTHW[:, :1]
    both, _ = network.step(image_BCHW, mixed)
    going_on, _ = network.step(image_BCHW, old)
    beginning, _ = network.step(image_BCHW, fresh)
    assert torch.equal(both.logits_BNHW[0], going_on.logits_BNHW[0])
    assert torch.equal(both.logits_BNHW[1], beginning.logits_BNHW[1])


def test_a_step_leaves_its_inputs_alone(network: BaseNetwork) -> None:
    images_BTHW = cines(1, 2)
    _, state = network.step(images_BTHW[:, :1], network.initial_state(1, SIDE, SIDE))
    before = BaseState(*(tensor.clone() for tensor in state.tensors()))
    image_BCHW = images_BTHW[:, 1:].clone()
    network.step(image_BCHW, state)
    assert_same_state(state, before)
    assert torch.equal(image_BCHW, images_BTHW[:, 1:])


def test_the_value_is_encoded_with_the_pixels_of_the_frame_before(network: BaseNetwork) -> None:
    images_BTHW = cines(1, 2)
    seen: list[Tensor] = []
    handle = network.mask_encoder.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[1])
    )
    run(network, images_BTHW)
    handle.remove()
    pixels_BCHW = network.encode_image(images_BTHW[:, :1]).pixels_BCHW
    assert torch.equal(seen[0], pixels_BCHW)
    assert torch.equal(seen[1], pixels_BCHW)


def test_the_empty_first_mask_leaves_the_foreground_summaries_empty(network: BaseNetwork) -> None:
    _, state = run(network, cines(1, 1))
    foreground_BNQC, background_BNQC = state.objects_BNQC.chunk(2, dim=2)
    assert not foreground_BNQC.any()
    assert background_BNQC.all()


def test_a_single_mask_is_the_sigmoid_of_twice_its_log_odds(network: BaseNetwork) -> None:
    quarters: list[Tensor] = []
    handle = network.mask_decoder.register_forward_hook(
        lambda _module, _inputs, answer: quarters.append(answer[0])
    )
    output, _ = network.step(cines(1, 1), network.initial_state(1, SIDE, SIDE))
    handle.remove()
    full_BNHW = functional.interpolate(quarters[0], scale_factor=4.0, mode="bilinear")
    torch.testing.assert_close(output.masks_BNHW, torch.sigmoid(2 * full_BNHW), atol=1e-5, rtol=0)


def test_keys_sum_to_one_at_every_position(network: BaseNetwork) -> None:
    key_BKP = network.encode_image(cines(1, 1)).key_BKP
    torch.testing.assert_close(key_BKP.sum(dim=1), torch.ones(1, (SIDE // 16) ** 2))
    assert bool((key_BKP >= 0).all())


def test_the_rerelease_keeps_a_share_and_the_official_multiplier_is_negative(
    golden_network: GoldenNetwork,
) -> None:
    memory_BNKV = 10 * torch.randn(1, 1, 64, 256, generator=torch.Generator().manual_seed(0))
    kept, _ = golden_network(AlphaRule.RERELEASE, torch.float32).gates(memory_BNKV)
    multiplier, beta = golden_network(AlphaRule.OFFICIAL, torch.float32).gates(memory_BNKV)
    assert bool(((kept > 0) & (kept <= 1)).all())
    assert bool((multiplier < 0).all())
    assert multiplier.min().item() < -1
    assert bool(((beta >= 0) & (beta <= 1)).all())


@RULES
@pytest.mark.parametrize("grey", [0.0, 1.0, None], ids=["black", "white", "noise"])
def test_masks_are_finite_probabilities_whatever_the_frames(
    rule: AlphaRule, grey: float | None, golden_network: GoldenNetwork
) -> None:
    noise_BTHW = torch.rand(1, 6, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).round()
    images_BTHW = noise_BTHW if grey is None else torch.full_like(noise_BTHW, grey)
    outputs, state = golden_network(rule, torch.float32).clip(images_BTHW)
    for output in outputs:
        assert bool(((output.masks_BNHW >= 0) & (output.masks_BNHW <= 1)).all())
    assert state.sensory_BNCHW.abs().max().item() <= 1


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    network = BaseNetwork(BaseConfig(AlphaRule.RERELEASE)).train()
    outputs, _ = network.clip(cines(2, 3))
    loss = torch.zeros(())
    for output in outputs:
        auxiliary = network.auxiliary_logits(output)
        for logits in (output.logits_BNHW, auxiliary.sensory_BNHW, auxiliary.query_BNLHW):
            loss = loss + (logits * torch.randn_like(logits)).sum()
    loss.backward()
    dead = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert dead == []


def test_the_decay_begins_in_the_published_range() -> None:
    torch.manual_seed(0)
    for _ in range(50):
        a_log_M, dt_bias_M = initial_decay()
        step_M = functional.softplus(dt_bias_M)
        low, high = DECAY_STEP_RANGE
        assert a_log_M.exp().max().item() <= DECAY_RATE_MAX
        assert low * 0.999 <= step_M.min().item() <= step_M.max().item() <= high * 1.001


def test_without_its_auxiliary_head_it_has_no_auxiliary_logits() -> None:
    network = BaseNetwork(BaseConfig(auxiliary_head=False)).requires_grad_(False).eval()
    output, _ = network.step(torch.zeros(1, 1, 16, 16), network.initial_state(1, 16, 16))
    with pytest.raises(WeightsError, match="no auxiliary head"):
        network.auxiliary_logits(output)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (1, 3, 64, 64), (1, 1, 64, 48), (1, 64, 64)])
def test_an_image_that_does_not_fit_the_state_is_refused(
    network: BaseNetwork, shape: tuple[int, ...]
) -> None:
    named = "1 session of 1 x 64 x 64.*" + " x ".join(map(str, shape))
    with pytest.raises(StateError, match=named):
        network.step(torch.zeros(shape), network.initial_state(1, SIDE, SIDE))


def test_a_clip_without_frames_is_refused(network: BaseNetwork) -> None:
    with pytest.raises(StateError, match="at least one frame"):
        network.clip(torch.zeros(1, 0, SIDE, SIDE))
