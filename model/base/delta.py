"""The published linear key-value association and gated delta rule, as pure functions.

The memory M (K x V) is the transpose of the paper's S. With keys K (K x P, each column a softmax)
and values V (V x P) of frame t,

    frame 0:  M_0 = K_0 V_0^T
    frame t:  beta  = sigmoid(M_{t-1} W_b)
              decay = -exp(A_log) softplus(M_{t-1} W_a + dt_bias)
              M_t   = alpha^ * (M_{t-1} - beta^ * K_t K_t^T M_{t-1}) + beta^ * K_t V_t^T
    readout:  R_t = M_t^T K_t

where * is elementwise and ^ spreads one value a key row and head over the head's value channels.
The published versions differ in alpha only, see ``AlphaRule``. Neither is bounded: the largest
eigenvalue of K K^T is at least P / 64, which is 4 at 256 x 256 pixels, so the erase may overshoot
without end.

Source:
    Wang et al. 2025, arXiv:2512.10252 (LKVA and GDR); the gates as the published code has them.
"""

import torch
from torch import Tensor
from torch.nn import functional

from model.base.config import GATE_HEADS, AlphaRule


def associate(key_BKP: Tensor, value_BNVP: Tensor) -> Tensor:
    """The association K V^T, which alone is the memory after the first frame.

    Returns:
        memory_BNKV.
    """
    return key_BKP[:, None] @ value_BNVP.transpose(2, 3)


def recall(memory_BNKV: Tensor, query_BKP: Tensor) -> Tensor:
    """What the memory answers at every position.

    Returns:
        readout_BNVP.
    """
    return memory_BNKV.transpose(2, 3) @ query_BKP[:, None]


def write_gate(memory_BNKV: Tensor, beta_weight_MV: Tensor) -> Tensor:
    """How strongly each key row of each head is corrected, from the memory before the write.

    Returns:
        beta_BNKM in (0, 1).
    """
    return torch.sigmoid(functional.linear(memory_BNKV, beta_weight_MV))


def log_decay(
    memory_BNKV: Tensor, alpha_weight_MV: Tensor, a_log_M: Tensor, dt_bias_M: Tensor
) -> Tensor:
    """The logarithm of the share kept, from the memory before the write.

    Returns:
        decay_BNKM, at most 0.

    Source:
        Yang et al. 2024, arXiv:2412.06464, with Mamba's parametrisation of the decay.
    """
    step_BNKM = functional.softplus(functional.linear(memory_BNKV, alpha_weight_MV) + dt_bias_M)
    return -a_log_M.exp() * step_BNKM


def alpha_of(decay_BNKM: Tensor, rule: AlphaRule) -> Tensor:
    """The multiplier of the old memory under a published rule, one value a key row and head."""
    return decay_BNKM if rule is AlphaRule.OFFICIAL else decay_BNKM.exp()


def interleave_heads(gate_BNKM: Tensor, value_width: int) -> Tensor:
    """Spread heads so that neighbours share one: channel v gets head v div (V / M)."""
    share = value_width // gate_BNKM.shape[-1]
    return gate_BNKM[..., None].expand(*gate_BNKM.shape, share).flatten(3)


def tile_heads(gate_BNKM: Tensor, value_width: int) -> Tensor:
    """Spread heads by repeating the row of heads: channel v gets head v mod M."""
    return gate_BNKM.repeat(1, 1, 1, value_width // gate_BNKM.shape[-1])


def delta_step(
    memory_BNKV: Tensor, key_BKP: Tensor, value_BNVP: Tensor, alpha_BNKV: Tensor, beta_BNKV: Tensor
) -> Tensor:
    """Erase what the frame's keys recall, decay the rest, and write the frame's values.

    Args:
        memory_BNKV: memory before the write.
        key_BKP: softmax over K at every position, shared by the structures.
        value_BNVP: what the memory should answer under those keys.
        alpha_BNKV: multiplier of the old memory, heads already spread.
        beta_BNKV: strength of erase and write in (0, 1), heads already spread.

    Returns:
        The memory after the write, a new tensor of the same shape.
    """
    gram_B1KK = (key_BKP @ key_BKP.transpose(1, 2))[:, None]
    kept_BNKV = memory_BNKV - beta_BNKV * (gram_B1KK @ memory_BNKV)
    return alpha_BNKV * kept_BNKV + beta_BNKV * associate(key_BKP, value_BNVP)


def delta_step_reference(
    memory_KV: Tensor,
    key_KP: Tensor,
    value_VP: Tensor,
    gates_KM: tuple[Tensor, Tensor],
    rule: AlphaRule,
) -> Tensor:
    """One write for one structure, column by column as the module's formula is written.

    Args:
        memory_KV: memory before the write.
        key_KP: softmax over K at every position.
        value_VP: what the memory should answer under those keys.
        gates_KM: log-decay and beta, one value a key row and head.
        rule: which published alpha.
    """
    decay_KM, beta_KM = gates_KM
    columns = []
    for channel, memory_K in enumerate(memory_KV.unbind(1)):
        head = channel // (memory_KV.shape[1] // GATE_HEADS)
        beta_K = beta_KM[:, head]
        if rule is AlphaRule.OFFICIAL:
            alpha_K = decay_KM[:, channel % GATE_HEADS]
        else:
            alpha_K = decay_KM[:, head].exp()
        erased_K = memory_K - beta_K * (key_KP @ (key_KP.T @ memory_K))
        columns.append(alpha_K * erased_K + beta_K * (key_KP @ value_VP[channel]))
    return torch.stack(columns, dim=1)
