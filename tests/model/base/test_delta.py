"""The published memory law: the fast form against the formula, and how heads are spread."""

import pytest
import torch
from torch import Tensor

from model.base.config import AlphaRule
from model.base.delta import (
    alpha_of,
    associate,
    delta_step,
    delta_step_reference,
    interleave_heads,
    log_decay,
    recall,
    tile_heads,
    write_gate,
)

B, N, K, V, P, M = 2, 3, 5, 16, 7, 8


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("rule", AlphaRule)
def test_a_step_is_the_published_formula(rule: AlphaRule, random: torch.Generator) -> None:
    memory_BNKV, value_BNVP = normal(random, B, N, K, V), normal(random, B, N, V, P)
    key_BKP = normal(random, B, K, P).softmax(dim=1)
    decay_BNKM, beta_BNKM = -normal(random, B, N, K, M).exp(), normal(random, B, N, K, M).sigmoid()
    spread = tile_heads if rule is AlphaRule.OFFICIAL else interleave_heads
    found_BNKV = delta_step(
        memory_BNKV,
        key_BKP,
        value_BNVP,
        spread(alpha_of(decay_BNKM, rule), V),
        interleave_heads(beta_BNKM, V),
    )
    for b in range(B):
        for n in range(N):
            gates_KM = (decay_BNKM[b, n], beta_BNKM[b, n])
            wanted_KV = delta_step_reference(
                memory_BNKV[b, n], key_BKP[b], value_BNVP[b, n], gates_KM, rule
            )
            torch.testing.assert_close(found_BNKV[b, n], wanted_KV)


def test_heads_are_interleaved_or_tiled_over_the_value_channels() -> None:
    heads_BNKM = torch.arange(8.0).view(1, 1, 1, 8)
    channels = torch.arange(256)
    assert torch.equal(interleave_heads(heads_BNKM, 256).flatten(), (channels // 32).float())
    assert torch.equal(tile_heads(heads_BNKM, 256).flatten(), (channels % 8).float())


def test_a_full_write_to_distinct_keys_is_recalled_exactly(random: torch.Generator) -> None:
    key_BKP = torch.eye(K, dtype=torch.float64)[None]
    value_BNVP = normal(random, 1, N, V, K)
    memory_BNKV = delta_step(
        normal(random, 1, N, K, V),
        key_BKP,
        value_BNVP,
        torch.ones(1, N, K, V, dtype=torch.float64),
        torch.ones(1, N, K, V, dtype=torch.float64),
    )
    torch.testing.assert_close(recall(memory_BNKV, key_BKP), value_BNVP)


def test_an_association_is_a_sum_over_positions(random: torch.Generator) -> None:
    key_BKP, value_BNVP = normal(random, B, K, P), normal(random, B, N, V, P)
    wanted_BNKV = torch.einsum("bkp,bnvp->bnkv", key_BKP, value_BNVP)
    torch.testing.assert_close(associate(key_BKP, value_BNVP), wanted_BNKV)


def test_gates_of_an_empty_memory_have_a_closed_form(random: torch.Generator) -> None:
    empty_BNKV = torch.zeros(1, 1, K, V, dtype=torch.float64)
    weight_MV = normal(random, M, V)
    a_log_M, dt_bias_M = normal(random, M), normal(random, M)
    beta_BNKM = write_gate(empty_BNKV, weight_MV)
    decay_BNKM = log_decay(empty_BNKV, weight_MV, a_log_M, dt_bias_M)
    assert bool((beta_BNKM == 0.5).all())
    wanted_M = -(a_log_M.exp() * torch.log1p(dt_bias_M.exp()))
    torch.testing.assert_close(decay_BNKM, wanted_M.expand(1, 1, K, M))


def test_without_a_bound_the_published_rule_overflows_where_the_grid_is_large() -> None:
    # 16 x 16 positions, 64 uniform keys: the Gram matrix has the eigenvalue 4, the erase factor is
    # 1 - 4 beta, and a memory along the uniform key grows by 3 alpha a frame at beta = 1.
    key_BKP = torch.full((1, 64, 256), 1 / 64, dtype=torch.float64)
    ones_BNKV = torch.ones(1, 1, 64, 1, dtype=torch.float64)
    silent_BNVP = torch.zeros(1, 1, 1, 256, dtype=torch.float64)
    after_BNKV = delta_step(ones_BNKV, key_BKP, silent_BNVP, 0.9 * ones_BNKV, ones_BNKV)
    torch.testing.assert_close(after_BNKV, -2.7 * ones_BNKV)
