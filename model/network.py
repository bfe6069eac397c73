"""The nn.Modules of ``gdkvm-live``: encoder, fusion, memory, decoder; one ``step`` a frame.

A frame is read in this order: the encoder sees it; the memory and the sensory map, as the frames
before left them, are recalled under its queries and fused with it; the decoder draws the
structures; then memory and sensory map take up what was drawn. Every output of frame t depends on
frames <= t.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig
from model.delta import delta_step, recall
from model.encoder import Features, ResidualBlock, conv_norm, make_encoder
from model.frame import STRUCTURES

CLASSES = len(STRUCTURES) + 1


class NetworkState(NamedTuple):
    """What one session's frames leave behind, float32.

    Attributes:
        memory_BMKV: the key-value memory.
        sensory_BCHW: the gated sensory map on the stride-16 grid, entries in [-1, 1].
    """

    memory_BMKV: Tensor
    sensory_BCHW: Tensor


class StepOutput(NamedTuple):
    """What a step says of its frame.

    Attributes:
        scores_BNSHW: class scores, background first, of the S = 4 sub-pixels of every pixel at half
            size: upper left, upper right, lower left, lower right.
        presence_B: score (before the sigmoid) that this is an apical view of a left ventricle.
    """

    scores_BNSHW: Tensor
    presence_B: Tensor

    @property
    def logits_BNHW(self) -> Tensor:  # noqa: N802 (carries its axes)
        """Class scores at full size, background first."""
        return functional.pixel_shuffle(self.scores_BNSHW.flatten(1, 2), 2)

    @property
    def probabilities_BNHW(self) -> Tensor:  # noqa: N802 (carries its axes)
        """Of every structure at full size, float32."""
        return functional.pixel_shuffle(_shares(self.scores_BNSHW.float()).flatten(1, 2), 2)


def _shares(scores_BNSHW: Tensor) -> Tensor:
    """Probabilities of the structures; taken before sub-pixels are put in place, which costs less.

    Returns:
        shares_BNSHW, without the background.
    """
    return scores_BNSHW.softmax(dim=1)[:, 1:]


def position_code(channels: int, side: int) -> Tensor:
    """Fixed sine and cosine code of a square grid, code_1CHW.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, section 3.5, one half of the channels an axis.
    """
    quarter = channels // 4
    frequency_C = math.pi * 2.0 ** (torch.arange(quarter) * (4.0 / quarter) - 1.0)
    phase_CP = frequency_C[:, None] * ((torch.arange(side) + 0.5) / side)[None]
    wave_CP = torch.cat([phase_CP.sin(), phase_CP.cos()])
    rows = wave_CP[:, :, None].expand(-1, side, side)
    columns = wave_CP[:, None, :].expand(-1, side, side)
    return torch.cat([rows, columns])[None].contiguous()


class Address(nn.Module):
    """Keys and queries: key-pixel feature fusion, a position code, and for queries the sensory map.

    The key says where and what the frame shows; the query may also lean on what earlier frames
    left in the sensory map, so that a frame without content still finds its place.

    Source:
        Wang et al. 2025, arXiv:2512.10252 (KPFF); the position and sensory terms are ours.
    """

    code_1CHW: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, key = config.widths[3], config.key_width
        self.global_key = nn.Conv2d(width, key, 1)
        self.local_key = nn.Conv2d(width, key, 3, padding=1)
        self.gate = nn.Conv2d(key, 1, 1)
        self.place = nn.Conv2d(32, key, 1, bias=False)
        self.from_sensory = nn.Conv2d(config.sensory_width, key, 1, bias=False)
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("code_1CHW", position_code(32, config.grid), persistent=False)

    def forward(self, f16_BCHW: Tensor, sensory_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The frame's addresses.

        Returns:
            key_BKP, query_BKP: softmax over K at every position.
        """
        key_BKHW = self.global_key(f16_BCHW)
        mixed_BKHW = key_BKHW + key_BKHW.mean(dim=(2, 3), keepdim=True)
        gate_B1HW = torch.sigmoid(self.gate(mixed_BKHW))
        raw_BKHW = gate_B1HW * mixed_BKHW + (1 - gate_B1HW) * self.local_key(f16_BCHW)
        raw_BKHW = self.gain * (raw_BKHW + self.place(self.code_1CHW))
        query_BKHW = raw_BKHW + self.gain * self.from_sensory(sensory_BCHW)
        return raw_BKHW.flatten(2).softmax(dim=1), query_BKHW.flatten(2).softmax(dim=1)


class Gates(nn.Module):
    """How much to keep and how strongly to write, one scalar a head, from frame and sensory map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.alpha_max = config.alpha_max
        self.project = nn.Linear(config.widths[3] + config.sensory_width, 2 * config.heads)
        nn.init.zeros_(self.project.weight)
        with torch.no_grad():
            self.project.bias.copy_(torch.tensor([2.0, 0.0]).repeat_interleave(config.heads))

    def forward(self, fused_BCHW: Tensor, sensory_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_BM in (0, alpha_max) and beta_BM in (0, 1)."""
        pooled_BC = torch.cat([fused_BCHW.mean(dim=(2, 3)), sensory_BCHW.mean(dim=(2, 3))], dim=1)
        alpha_BM, beta_BM = torch.sigmoid(self.project(pooled_BC)).chunk(2, dim=1)
        return self.alpha_max * alpha_BM, beta_BM


class SensoryUpdate(nn.Module):
    """A convolutional gated unit; its state stays in [-1, 1] because each update is a convex mix.

    Source:
        Cho et al. 2014, arXiv:1406.1078, with 3x3 convolutions.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + width, 2 * width, 3, padding=1)
        self.candidate = nn.Conv2d(inputs + width, width, 3, padding=1)

    def forward(self, seen_BCHW: Tensor, sensory_BCHW: Tensor) -> Tensor:
        """The next sensory map."""
        gates = torch.sigmoid(self.gates(torch.cat([seen_BCHW, sensory_BCHW], dim=1)))
        update, reset = gates.chunk(2, dim=1)
        mixed = torch.cat([seen_BCHW, reset * sensory_BCHW], dim=1)
        return sensory_BCHW + update * (torch.tanh(self.candidate(mixed)) - sensory_BCHW)


class Decoder(nn.Module):
    """From stride 16 back to full size with skips; the last factor two by sub-pixel convolution."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.lift8 = conv_norm(w16, w8, 1)
        self.block8 = ResidualBlock(w8)
        self.lift4 = conv_norm(w8, w4, 1)
        self.block4 = ResidualBlock(w4)
        self.lift2 = conv_norm(w4, w2, 1)
        self.block2 = ResidualBlock(w2)
        self.head = nn.Conv2d(w2, 4 * CLASSES, 3, padding=1)

    def forward(self, fused_BCHW: Tensor, features: Features) -> Tensor:
        """scores_BNSHW; see StepOutput."""
        x = self._up(self.lift8(fused_BCHW), features.f8_BCHW, self.block8)
        x = self._up(self.lift4(x), features.f4_BCHW, self.block4)
        x = self._up(self.lift2(x), features.f2_BCHW, self.block2)
        scores_BNSHW: Tensor = self.head(x).unflatten(1, (CLASSES, 4))
        return scores_BNSHW

    @staticmethod
    def _up(x_BCHW: Tensor, skip_BCHW: Tensor, block: nn.Module) -> Tensor:
        up = functional.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")
        return block(functional.relu(up + skip_BCHW))


class LiveNetwork(nn.Module):
    """``gdkvm-live``: one step a frame, state in and state out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, sensory = config.widths[3], config.sensory_width
        values = config.heads * config.value_width
        self.encoder = make_encoder(config)
        self.address = Address(config)
        self.from_memory = nn.Conv2d(values, width, 1, bias=False)
        self.from_sensory = nn.Conv2d(sensory, width, 3, padding=1, bias=False)
        self.fuse = ResidualBlock(width)
        self.presence = nn.Linear(width, 1)
        self.decoder = Decoder(config.widths)
        self.gates = Gates(config)
        self.value = nn.Conv2d(width + CLASSES - 1, values, 3, padding=1)
        self.sensory = SensoryUpdate(width + CLASSES - 1, sensory)

    def initial_state(self, batch: int) -> NetworkState:
        """The state before the first frame: zeros."""
        config = self.config
        weight = self.presence.weight
        return NetworkState(
            weight.new_zeros(batch, config.heads, config.key_width, config.value_width),
            weight.new_zeros(batch, config.sensory_width, config.grid, config.grid),
        )

    def step(self, image_B1HW: Tensor, state: NetworkState) -> tuple[StepOutput, NetworkState]:
        """Segment one frame of every session.

        Args:
            image_B1HW: grey values in [0, 1].
            state: what the frames before left behind.

        Returns:
            The frame's scores and the next state; the inputs are left alone.
        """
        return self.step_features(self.encoder(image_B1HW), state)

    def step_features(
        self, features: Features, state: NetworkState
    ) -> tuple[StepOutput, NetworkState]:
        """The recurrent part of ``step``, for clips whose frames were encoded in one batch."""
        key_BKP, query_BKP = self.address(features.f16_BCHW, state.sensory_BCHW)
        fused_BCHW = self._fuse(features.f16_BCHW, query_BKP, state)
        scores_BNSHW = self.decoder(fused_BCHW, features)
        presence_B = self.presence(fused_BCHW.mean(dim=(2, 3)))[:, 0]
        pooled_BCHW = functional.avg_pool2d(_shares(scores_BNSHW).flatten(1, 2), 8)
        drawn_BNHW = pooled_BCHW.unflatten(1, (CLASSES - 1, 4)).mean(dim=2)
        seen_BCHW = torch.cat([fused_BCHW, drawn_BNHW], dim=1)
        memory_BMKV = self._write(key_BKP, seen_BCHW, fused_BCHW, state)
        sensory_BCHW = self.sensory(seen_BCHW, state.sensory_BCHW)
        return StepOutput(scores_BNSHW, presence_B), NetworkState(memory_BMKV, sensory_BCHW)

    def _fuse(self, f16_BCHW: Tensor, query_BKP: Tensor, state: NetworkState) -> Tensor:
        readout_BMVP = recall(state.memory_BMKV, query_BKP)
        size_BM1P = readout_BMVP.square().mean(dim=2, keepdim=True)
        readout_BMVP = readout_BMVP * torch.rsqrt(size_BM1P + 1e-2)
        grid = self.config.grid
        readout_BCHW = readout_BMVP.flatten(1, 2).unflatten(2, (grid, grid))
        return self.fuse(
            f16_BCHW + self.from_memory(readout_BCHW) + self.from_sensory(state.sensory_BCHW)
        )

    def _write(
        self, key_BKP: Tensor, seen_BCHW: Tensor, fused_BCHW: Tensor, state: NetworkState
    ) -> Tensor:
        alpha_BM, beta_BM = self.gates(fused_BCHW, state.sensory_BCHW)
        value_BMVP = torch.tanh(self.value(seen_BCHW)).flatten(2)
        value_BMVP = value_BMVP.unflatten(1, (self.config.heads, self.config.value_width))
        return delta_step(state.memory_BMKV, key_BKP, value_BMVP, alpha_BM, beta_BM)

    def clip(self, images_BTHW: Tensor, state: NetworkState) -> tuple[Tensor, Tensor, NetworkState]:
        """Segment whole clips; equal to ``step`` frame by frame.

        Returns:
            logits_BTNHW, presence_BT and the state after the last frame.
        """
        batch, frames = images_BTHW.shape[:2]
        encoded = self.encoder(images_BTHW.flatten(0, 1)[:, None])
        logits, presence = [], []
        for t in range(frames):
            at_t = Features(*(f.unflatten(0, (batch, frames))[:, t] for f in encoded))
            output, state = self.step_features(at_t, state)
            logits.append(output.logits_BNHW)
            presence.append(output.presence_B)
        return torch.stack(logits, dim=1), torch.stack(presence, dim=1), state
