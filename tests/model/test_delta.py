"""The live memory law: the fast form against the formula, and the bound that it proves."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.config import ModelConfig
from model.delta import delta_step, delta_step_reference, memory_bound, recall

B, M, K, V, P = 2, 3, 5, 4, 7
ALPHA_MAX = ModelConfig().alpha_max
STEPS = 100_000
POOL = 97
"""Frames that a long stream draws from; prime, so that every session meets every pairing."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Frame(NamedTuple):
    """What a step takes beside the memory."""

    key_BKP: Tensor
    value_BMVP: Tensor
    alpha_BM: Tensor
    beta_BM: Tensor


def random_frame(seed: int = 0, sharpness: float = 3.0) -> Frame:
    random = torch.Generator().manual_seed(seed)
    key_BKP = (sharpness * torch.randn(B, K, P, generator=random)).double().softmax(dim=1)
    value_BMVP = torch.randn(B, M, V, P, generator=random).double().tanh()
    alpha_BM, beta_BM = torch.rand(2, B, M, generator=random).double()
    return Frame(key_BKP, value_BMVP, ALPHA_MAX * alpha_BM, beta_BM)


def random_memory(seed: int = 1) -> Tensor:
    return torch.randn(B, M, K, V, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_the_formula_head_by_head(seed: int) -> None:
    frame, memory_BMKV = random_frame(seed), random_memory(seed)
    found_BMKV = delta_step(memory_BMKV, *frame)
    for b in range(B):
        for m in range(M):
            wanted_KV = delta_step_reference(
                memory_BMKV[b, m],
                frame.key_BKP[b],
                frame.value_BMVP[b, m],
                float(frame.alpha_BM[b, m]),
                float(frame.beta_BM[b, m]),
            )
            torch.testing.assert_close(found_BMKV[b, m], wanted_KV)


def test_a_full_write_under_one_key_is_recalled_exactly() -> None:
    # All positions share the key k, so G / g = k k^T / |k|^2: what k recalled is erased whole, and
    # what it recalls afterwards is the mean of the values.
    key_K = torch.tensor([0.5, 0.3, 0.1, 0.1, 0.0], dtype=torch.float64)
    frame = random_frame()._replace(key_BKP=key_K[None, :, None].expand(B, K, P))
    full = torch.ones(B, M, dtype=torch.float64)
    after_BMKV = delta_step(random_memory(), frame.key_BKP, frame.value_BMVP, full, full)
    mean_BMV1 = frame.value_BMVP.mean(dim=3, keepdim=True)
    torch.testing.assert_close(
        recall(after_BMKV, frame.key_BKP), mean_BMV1.expand_as(frame.value_BMVP)
    )


def test_a_closed_write_gate_only_forgets() -> None:
    frame = random_frame()
    shut_BM = torch.zeros_like(frame.beta_BM)
    memory_BMKV = random_memory()
    after_BMKV = delta_step(memory_BMKV, *frame._replace(beta_BM=shut_BM))
    torch.testing.assert_close(after_BMKV, frame.alpha_BM[..., None, None] * memory_BMKV)


def test_a_neighbour_in_the_batch_changes_nothing() -> None:
    frame, memory_BMKV = random_frame(), random_memory()
    after_BMKV = delta_step(memory_BMKV, *frame)
    for intruder in (1e6, torch.nan, torch.inf):
        crowd = [tensor.clone() for tensor in (memory_BMKV, *frame)]
        for tensor in crowd:
            tensor[1] = intruder
        assert torch.equal(delta_step(*crowd)[0], after_BMKV[0])


def test_a_step_leaves_its_inputs_alone() -> None:
    inputs = (random_memory(), *random_frame())
    before = [tensor.clone() for tensor in inputs]
    after_BMKV = delta_step(*inputs)
    assert all(torch.equal(now, then) for now, then in zip(inputs, before, strict=True))
    after_BMKV.zero_()
    assert torch.equal(inputs[0], before[0])


def test_the_bound_is_the_one_that_is_proven() -> None:
    assert memory_bound(64, 32, 0.97) == pytest.approx(math.sqrt(2048) / 0.03)


def test_the_bound_of_a_single_write_is_reached() -> None:
    # Uniform keys and values of one sign: |K V^T| / g = (P / K) sqrt(K V) / (P / K).
    key_BKP = torch.full((1, K, P), 1 / K, dtype=torch.float64)
    ones_BMVP = torch.ones(1, 1, V, P, dtype=torch.float64)
    empty_BMKV = torch.zeros(1, 1, K, V, dtype=torch.float64)
    full_BM = torch.ones(1, 1, dtype=torch.float64)
    after_BMKV = delta_step(empty_BMKV, key_BKP, ones_BMVP, full_BM, full_BM)
    assert after_BMKV.norm().item() == pytest.approx(math.sqrt(K * V))
    assert after_BMKV.norm().item() == pytest.approx(memory_bound(K, V, 0.0))


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sharpness=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e4]),
    loudness=st.sampled_from([0.0, 1.0, 1e4]),
    alpha=st.floats(0.0, ALPHA_MAX),
    beta=st.floats(0.0, 1.0),
    key_width=st.integers(1, 6),
    positions=st.integers(1, 9),
)
def test_no_step_adds_more_than_the_proof_allows(
    seed: int,
    sharpness: float,
    loudness: float,
    alpha: float,
    beta: float,
    key_width: int,
    positions: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    key_KP = (sharpness * torch.randn(key_width, positions, generator=random)).double().softmax(0)
    value_VP = (loudness * torch.randn(V, positions, generator=random)).double().tanh()
    memory_KV = 100 * torch.randn(key_width, V, generator=random).double()
    gates = torch.tensor([[[alpha]], [[beta]]], dtype=torch.float64)
    after_BMKV = delta_step(memory_KV[None, None], key_KP[None], value_VP[None, None], *gates)
    grown = after_BMKV.norm().item() - alpha * memory_KV.norm().item()
    assert grown <= beta * math.sqrt(key_width * V) + 1e-9


def hostile_frames(dtype: torch.dtype) -> list[Frame]:
    """POOL frames for eight sessions of one head, K = V = 4 on 16 positions.

    Sessions 0 and 1 see random frames under random gates, soft and sharp. The others see what an
    opponent would send under the widest gates: uniform keys; uniform and one-hot keys in turn;
    one-hot keys that wander; half the positions on one key; values that flip sign every frame; and
    a write gate that is all but shut between full writes.
    """
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(POOL, 8, 4, 16, generator=random)
    logits *= torch.tensor([1.0, 30.0, 0.0, 0.0, 0.0, 0.0, 30.0, 30.0])[:, None, None]
    turn = torch.arange(POOL)
    logits[1::2, 3, 0] = 1e3
    logits[turn, 4, turn % 4] = 1e3
    logits[:, 5, 0, :8] = 1e3
    value = torch.randn(POOL, 8, 1, 4, 16, generator=random).sign()
    value[:, :2] = torch.randn(POOL, 2, 1, 4, 16, generator=random).tanh()
    value[:, 2:6] = 1.0
    value[1::2, 6] = -value[1::2, 6]
    alpha = torch.rand(POOL, 8, 1, generator=random)
    beta = torch.rand(POOL, 8, 1, generator=random)
    alpha[:, 2:], beta[:, 2:7] = 1.0, 1.0
    beta[:, 7] = torch.where(turn % 5 == 0, 1.0, 1e-3)[:, None]
    key = logits.softmax(dim=2)
    alpha = (ALPHA_MAX * alpha).to(dtype).clamp_max(ALPHA_MAX)
    tensors = zip(key.to(dtype), value.to(dtype), alpha, beta.to(dtype), strict=True)
    return [Frame(*each) for each in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_the_memory_stays_inside_its_bound_for_100_000_frames(dtype: torch.dtype) -> None:
    frames = hostile_frames(dtype)
    memory_BMKV = torch.zeros(8, 1, 4, 4, dtype=dtype)
    largest_BMKV = torch.zeros_like(memory_BMKV)
    with torch.inference_mode():
        for t in range(STEPS):
            memory_BMKV = delta_step(memory_BMKV, *frames[t % POOL])
            largest_BMKV = torch.maximum(largest_BMKV, memory_BMKV.abs())
    # The norm of the largest entry of each place is at least the largest norm on the way.
    norm_BM = largest_BMKV.double().norm(dim=(2, 3))
    assert bool(norm_BM.isfinite().all())
    assert norm_BM.max().item() <= memory_bound(4, 4, ALPHA_MAX)
    assert norm_BM.min().item() > 0.5


def test_the_same_frames_overflow_a_memory_that_does_not_divide() -> None:
    memory_BMKV = torch.zeros(8, 1, 4, 4, dtype=torch.float64)
    for key_BKP, value_BMVP, alpha_BM, beta_BM in hostile_frames(torch.float64):
        gram_BMKK = (key_BKP @ key_BKP.transpose(1, 2))[:, None]
        alpha_BM11, beta_BM11 = alpha_BM[..., None, None], beta_BM[..., None, None]
        write_BMKV = key_BKP[:, None] @ value_BMVP.transpose(2, 3)
        kept_BMKV = memory_BMKV - beta_BM11 * (gram_BMKK @ memory_BMKV)
        memory_BMKV = alpha_BM11 * kept_BMKV + beta_BM11 * write_BMKV
    norm_BM = memory_BMKV.norm(dim=(2, 3))
    assert bool((norm_BM[2:] > memory_bound(4, 4, ALPHA_MAX)).all())
