"""Parts that several stages of ``gdkvm-base`` share."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.base.config import STRIDE, VALUE_WIDTH

ATTENTION_KERNEL = 5
PROBABILITY_EPS = 1e-7
POSITION_SCALE = 32.0
POSITION_TEMPERATURE = 128.0
POSITION_EPS = 1e-6


def full_precision(x: Tensor) -> Tensor:
    """At least float32; float64 stays what it is."""
    return x if x.dtype == torch.float64 else x.float()


def to_grid(full_BNHW: Tensor) -> Tensor:
    """Mean over each 16 x 16 block: from full size to the stride-16 grid."""
    return functional.avg_pool2d(full_BNHW, STRIDE)


def other_masks(masks_BNHW: Tensor) -> Tensor:
    """For each structure, the sum of the masks of all others."""
    return masks_BNHW.sum(dim=1, keepdim=True) - masks_BNHW


def aggregate(probability_BN: Tensor) -> Tensor:
    """Log-odds of background and structures from independent foreground probabilities.

    Args:
        probability_BN: in [0, 1], any axes after the structures.

    Returns:
        Log-odds with the background in front along the second axis, at least float32.

    Source:
        Oh et al. 2019, arXiv:1904.00607, section 3.4 (soft aggregation).
    """
    probability_BN = full_precision(probability_BN)
    background_B1 = (1 - probability_BN).prod(dim=1, keepdim=True)
    all_BN = torch.cat([background_B1, probability_BN], dim=1)
    all_BN = all_BN.clamp(PROBABILITY_EPS, 1 - PROBABILITY_EPS)
    return (all_BN / (1 - all_BN)).log()


def position_frequencies() -> Tensor:
    """Frequencies of the position code of one grid axis, inv_freq_C, half of 128 channels.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, section 3.5, with temperature 128.
    """
    channels = VALUE_WIDTH // 2
    return POSITION_TEMPERATURE ** -(torch.arange(0, channels, 2).double() / channels)


class PositionCode(nn.Module):
    """Sine and cosine code of the grid: the first half of the channels is x, the second y."""

    inv_freq: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inv_freq", position_frequencies().to(torch.get_default_dtype()))

    def forward(self, rows: int, columns: int) -> Tensor:
        """code_HWC of a grid of that size."""
        row_H1C = self._axis(rows)[:, None].expand(-1, columns, -1)
        column_1WC = self._axis(columns)[None].expand(rows, -1, -1)
        return torch.cat([column_1WC, row_H1C], dim=2)

    def _axis(self, length: int) -> Tensor:
        place_P = torch.arange(length, dtype=self.inv_freq.dtype, device=self.inv_freq.device)
        place_P = place_P / (length - 1 + POSITION_EPS) * POSITION_SCALE
        phase_PC = place_P[:, None] * self.inv_freq
        return torch.stack([phase_PC.sin(), phase_PC.cos()], dim=2).flatten(1)


class ChannelAttentionBlock(nn.Module):
    """A residual block whose branch is gated channel by channel.

    Source:
        Wang et al. 2019, arXiv:1910.03151 (efficient channel attention).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH, 3, padding=1)
        padding = ATTENTION_KERNEL // 2
        self.conv = nn.Conv1d(1, 1, ATTENTION_KERNEL, padding=padding, bias=False)

    def forward(self, x_SCHW: Tensor) -> Tensor:
        """Same shape out as in."""
        y_SCHW = self.conv2(functional.relu(self.conv1(functional.relu(x_SCHW))))
        gate_S1C = torch.sigmoid(self.conv(y_SCHW.mean(dim=(2, 3))[:, None]))
        return y_SCHW * gate_S1C.transpose(1, 2)[..., None] + x_SCHW


class FeatureFuser(nn.Module):
    """Bring the frame's pixel features and one map per structure together."""

    def __init__(self) -> None:
        super().__init__()
        self.x_transform = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH, 1)
        self.y_transform = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH, 1)
        self.layer1 = ChannelAttentionBlock()
        self.layer2 = ChannelAttentionBlock()

    def forward(self, pixels_BCHW: Tensor, map_BNCHW: Tensor) -> Tensor:
        """fused_BNCHW."""
        batch_structures = map_BNCHW.shape[:2]
        map_SCHW = self.y_transform(map_BNCHW.flatten(0, 1))
        fused_BNCHW = self.x_transform(pixels_BCHW)[:, None] + map_SCHW.unflatten(
            0, batch_structures
        )
        fused_SCHW = self.layer2(self.layer1(fused_BNCHW.flatten(0, 1)))
        return fused_SCHW.unflatten(0, batch_structures)


def sensory_transform() -> nn.Conv2d:
    """The convolution behind the three gates of a sensory update, Xavier-normal at the start."""
    transform = nn.Conv2d(2 * VALUE_WIDTH, 3 * VALUE_WIDTH, 3, padding=1)
    nn.init.xavier_normal_(transform.weight)
    return transform


def updated_sensory(gates_SCHW: Tensor, sensory_SCHW: Tensor) -> Tensor:
    """The next sensory map.

    Args:
        gates_SCHW: forget, update and candidate before their activations, one after the other.
        sensory_SCHW: the map before, entries in [-1, 1].

    Source:
        Cheng and Schwing 2022, arXiv:2207.07115, section 3.3, gates in the order of GDKVM's code.
    """
    forget, update, candidate = gates_SCHW.chunk(3, dim=1)
    update = torch.sigmoid(update)
    return torch.sigmoid(forget) * sensory_SCHW * (1 - update) + update * torch.tanh(candidate)
