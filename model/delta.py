"""The gated delta rule of ``gdkvm-live`` as pure functions, and the proof of its bound.

Per head, with keys K (K x P, one column a position), values V (V x P) and the memory S (K x V):

    G = K K^T,  g = ||G||_F
    S_t = alpha (S_{t-1} - (beta / g) G S_{t-1}) + (beta / g) K V^T

This is the rule of the published network (S_t = alpha (I - beta K K^T) S_{t-1} + beta K V^T) with
two changes: erase and write are divided by the Frobenius norm of the Gram matrix, and the gates are
one scalar a head with alpha capped below one.

Bound. G is symmetric and positive semidefinite and its largest eigenvalue is at most ||G||_F, so
the eigenvalues of G / g lie in [0, 1] and, for beta in [0, 1], ||I - (beta / g) G||_2 <= 1. Hence
||S_t||_F <= alpha_max ||S_{t-1}||_F + ||K V^T||_F / g. Each column of K is a softmax over K
entries: it sums to 1, so 1^T G 1 = P and the largest eigenvalue of G, which is ||K||_2^2, is at
least P / K. With ||K V^T||_F <= ||K||_2 ||V||_F and g >= ||K||_2^2, the write is at most
||V||_F / ||K||_2 <= ||V||_F sqrt(K / P). A value entry is a tanh, so ||V||_F <= sqrt(V P) and the
write never exceeds sqrt(K V). From a start inside it, the memory therefore never leaves

    ||S_t||_F <= sqrt(K V) / (1 - alpha_max)        (``memory_bound``)

whatever the frames are. Dividing by g and not by P keeps the erase a real one: on trained keys
G / P has a largest eigenvalue near 0.2, while G / g has one of at least 1 / sqrt(rank G).
"""

import math

import torch
from torch import Tensor

GRAM_EPS = 1e-12


def memory_bound(key_width: int, value_width: int, alpha_max: float) -> float:
    """The Frobenius norm that one head's memory never exceeds; see the module's proof."""
    return math.sqrt(key_width * value_width) / (1.0 - alpha_max)


def delta_step_reference(
    memory_KV: Tensor, key_KP: Tensor, value_VP: Tensor, alpha: float, beta: float
) -> Tensor:
    """One frame of one head, written as the module's formula is."""
    gram_KK = key_KP @ key_KP.T
    strength = beta / float(torch.linalg.matrix_norm(gram_KK))
    erased_KV = memory_KV - strength * (gram_KK @ memory_KV)
    return alpha * erased_KV + strength * (key_KP @ value_VP.T)


def delta_step(
    memory_BMKV: Tensor, key_BKP: Tensor, value_BMVP: Tensor, alpha_BM: Tensor, beta_BM: Tensor
) -> Tensor:
    """Forget a little, then move what the memory recalls under the frame's keys towards its values.

    Args:
        memory_BMKV: memory before the write.
        key_BKP: softmax over K at every position, shared by the heads.
        value_BMVP: what the memory should answer under those keys, entries in [-1, 1].
        alpha_BM: share of the old memory kept, in (0, alpha_max].
        beta_BM: strength of erase and write, in [0, 1].

    Returns:
        The memory after the write, a new tensor of the same shape.

    Source:
        Wang et al. 2025, arXiv:2512.10252 (LKVA and GDR); bound: this module's docstring.
    """
    gram_BKK = key_BKP @ key_BKP.transpose(1, 2)
    norm_B11 = gram_BKK.square().sum(dim=(1, 2), keepdim=True).clamp_min(GRAM_EPS).sqrt()
    key_BMKP = (key_BKP / norm_B11)[:, None]
    recalled_BMVP = memory_BMKV.transpose(2, 3) @ key_BKP[:, None]
    beta_BM11 = beta_BM[..., None, None]
    alpha_BM11 = alpha_BM[..., None, None]
    change_BMVP = beta_BM11 * (value_BMVP - alpha_BM11 * recalled_BMVP)
    return alpha_BM11 * memory_BMKV + key_BMKP @ change_BMVP.transpose(2, 3)


def recall(memory_BMKV: Tensor, query_BKP: Tensor) -> Tensor:
    """What the memory answers at every position.

    Returns:
        readout_BMVP.
    """
    return memory_BMKV.transpose(2, 3) @ query_BKP[:, None]
