"""``gdkvm-base``: the published network, one step a frame or a whole clip.

Everything is causal. The value written at frame t encodes image t together with the mask and the
pixel features of frame t - 1; this staleness is the published behaviour and part of what trained
weights know.

Source:
    Wang et al. 2025, arXiv:2512.10252, in the frame order of its published code.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.base.blocks import aggregate, full_precision
from model.base.config import GATE_HEADS, VALUE_WIDTH, AlphaRule, BaseConfig
from model.base.decoder import AuxiliaryHead, MaskDecoder, PixelFuser, full_size_logits
from model.base.delta import (
    alpha_of,
    associate,
    delta_step,
    interleave_heads,
    log_decay,
    recall,
    tile_heads,
    write_gate,
)
from model.base.encoder import (
    ImageEncoder,
    ImageFeatures,
    KeyPixelFusion,
    KeyProjector,
    MaskEncoder,
    PixelProjector,
    normalised,
)
from model.base.state import BaseState
from model.base.transformer import ObjectSummarizer, QueryTransformer
from model.errors import StateError, WeightsError

DECAY_RATE_MAX = 16.0
DECAY_STEP_RANGE = (1e-3, 0.1)
DECAY_STEP_MIN = 1e-4


class Encoded(NamedTuple):
    """What the mask encoder makes of a frame."""

    value_BNCHW: Tensor
    sensory_BNCHW: Tensor
    objects_BNQC: Tensor


class Segmentation(NamedTuple):
    """What the decoder makes of a frame.

    Attributes:
        logits_BNHW: log-odds at full size, background first.
        masks_BNHW: probabilities at full size, background left out.
        sensory_BNCHW: the sensory map after the frame.
        query_logits_BNLHW: foreground log-odds of the query transformer's four drafts.
    """

    logits_BNHW: Tensor
    masks_BNHW: Tensor
    sensory_BNCHW: Tensor
    query_logits_BNLHW: Tensor


class StepOutput(NamedTuple):
    """What a step says of its frame.

    Attributes:
        logits_BNHW: log-odds at full size, background first.
        masks_BNHW: probabilities at full size, background left out.
        pixels_BCHW: pixel features, for the auxiliary losses.
        sensory_BNCHW: the sensory map after the frame, for the auxiliary losses.
        query_logits_BNLHW: drafts of the query transformer, for the auxiliary losses.
    """

    logits_BNHW: Tensor
    masks_BNHW: Tensor
    pixels_BCHW: Tensor
    sensory_BNCHW: Tensor
    query_logits_BNLHW: Tensor


class AuxiliaryLogits(NamedTuple):
    """Log-odds on the stride-16 grid, background first, for the training loss only."""

    sensory_BNHW: Tensor
    query_BNLHW: Tensor


def initial_decay() -> tuple[Tensor, Tensor]:
    """Random A_log and dt_bias, one value a head.

    Source:
        Yang et al. 2024, arXiv:2412.06464, as Mamba starts them.
    """
    a_log_M = (torch.rand(GATE_HEADS).clamp_min(1e-6) * DECAY_RATE_MAX).log()
    low, high = (math.log(bound) for bound in DECAY_STEP_RANGE)
    step_M = (torch.rand(GATE_HEADS) * (high - low) + low).exp().clamp_min(DECAY_STEP_MIN)
    return a_log_M, step_M + torch.log(-torch.expm1(-step_M))


class BaseNetwork(nn.Module):
    """The published network; parameter names are those of its checkpoints."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.config = config
        a_log_M, dt_bias_M = initial_decay()
        self.A_log = nn.Parameter(a_log_M)
        self.dt_bias = nn.Parameter(dt_bias_M)
        self.image_encoder = ImageEncoder()
        self.mask_encoder = MaskEncoder()
        self.key_projector = KeyProjector()
        self.pix_projector = PixelProjector()
        self.KPFF = KeyPixelFusion()
        self.mask_decoder = MaskDecoder()
        self.pixel_fuser = PixelFuser()
        self.object_transformer = QueryTransformer()
        self.object_summarizer = ObjectSummarizer()
        self.aux_computer = AuxiliaryHead() if config.auxiliary_head else None
        self.b_proj = nn.Linear(VALUE_WIDTH, GATE_HEADS, bias=False)
        self.a_proj = nn.Linear(VALUE_WIDTH, GATE_HEADS, bias=False)

    def initial_state(
        self, batch: int, height_px: int, width_px: int, structures: int = 1
    ) -> BaseState:
        """The state before the first frame.

        Raises:
            StateError: a side that is not a multiple of 16.
        """
        return BaseState.zeros(batch, structures, height_px, width_px, like=self.A_log)

    def step(self, image_BCHW: Tensor, state: BaseState) -> tuple[StepOutput, BaseState]:
        """Segment one frame of every session.

        Args:
            image_BCHW: one channel of grey values in [0, 1].
            state: what the frames before left behind.

        Returns:
            What the network says of the frame, and the next state; the inputs are left alone.

        Raises:
            StateError: an image of another batch or size than the state.
        """
        state.check_image(image_BCHW)
        return self.step_features(image_BCHW, self.encode_image(image_BCHW), state)

    def clip(
        self, images_BTHW: Tensor, state: BaseState | None = None, structures: int = 1
    ) -> tuple[list[StepOutput], BaseState]:
        """Segment whole clips, reading all images in one batch; equal to ``step`` frame by frame.

        Args:
            images_BTHW: grey values in [0, 1], at least one frame.
            state: what earlier frames left behind; None starts afresh.
            structures: foreground structures of a fresh start.

        Returns:
            One output a frame, and the state after the last.

        Raises:
            StateError: no frame, or images of another batch or size than the state.
        """
        batch, frames, height_px, width_px = images_BTHW.shape
        if frames == 0:
            raise StateError("a clip has at least one frame, got none")
        state = state or self.initial_state(batch, height_px, width_px, structures)
        state.check_image(images_BTHW[:, :1])
        encoded = self.encode_image(images_BTHW.flatten(0, 1)[:, None])
        outputs = []
        for t in range(frames):
            at_t = ImageFeatures(*(f.unflatten(0, (batch, frames))[:, t] for f in encoded))
            output, state = self.step_features(images_BTHW[:, t : t + 1], at_t, state)
            outputs.append(output)
        return outputs, state

    def encode_image(self, image_BCHW: Tensor) -> ImageFeatures:
        """What frames say by themselves; frames of one clip may lie along the batch."""
        f16_BCHW, f8_BCHW, f4_BCHW = self.image_encoder(normalised(image_BCHW))
        pixels_BCHW = self.pix_projector(f16_BCHW)
        raw_BCHW = self.KPFF(self.key_projector(f16_BCHW), pixels_BCHW)
        return ImageFeatures(f8_BCHW, f4_BCHW, pixels_BCHW, raw_BCHW.flatten(2).softmax(dim=1))

    def step_features(
        self, image_BCHW: Tensor, features: ImageFeatures, state: BaseState
    ) -> tuple[StepOutput, BaseState]:
        """The recurrent part of ``step``."""
        pixels_BCHW = features.pixels_BCHW
        first = state.is_start(pixels_BCHW)
        previous_BCHW = torch.where(first, pixels_BCHW, state.pixels_BCHW)
        encoded = self.encode_mask(image_BCHW, previous_BCHW, state.masks_BNHW, state.sensory_BNCHW)
        memory_BNKV = self.write(features.key_BKP, encoded.value_BNCHW, state)
        readout_BNCHW = recall(memory_BNKV, features.key_BKP).unflatten(3, pixels_BCHW.shape[2:])
        # A frame's own summary joins the sum after its segmentation; only the first uses its own.
        first = state.is_start(state.objects_BNQC)
        objects_BNQC = torch.where(first, encoded.objects_BNQC, state.objects_BNQC)
        drawn = self.segment(
            features, readout_BNCHW, state.masks_BNHW, encoded.sensory_BNCHW, objects_BNQC
        )
        after = BaseState(
            memory_BNKV=memory_BNKV,
            objects_BNQC=state.objects_BNQC + encoded.objects_BNQC,
            sensory_BNCHW=drawn.sensory_BNCHW,
            pixels_BCHW=pixels_BCHW,
            masks_BNHW=drawn.masks_BNHW,
            started_B=torch.ones_like(state.started_B),
        )
        output = StepOutput(
            drawn.logits_BNHW,
            drawn.masks_BNHW,
            pixels_BCHW,
            drawn.sensory_BNCHW,
            drawn.query_logits_BNLHW,
        )
        return output, after

    def encode_mask(
        self, image_BCHW: Tensor, pixels_BCHW: Tensor, masks_BNHW: Tensor, sensory_BNCHW: Tensor
    ) -> Encoded:
        """What a frame and its masks should leave behind.

        Args:
            image_BCHW: one channel of grey values in [0, 1].
            pixels_BCHW: pixel features of the frame that the masks belong to.
            masks_BNHW: soft masks in [0, 1].
            sensory_BNCHW: the sensory map before.
        """
        value_BNCHW, sensory_BNCHW = self.mask_encoder(
            normalised(image_BCHW), pixels_BCHW, masks_BNHW, sensory_BNCHW
        )
        return Encoded(value_BNCHW, sensory_BNCHW, self.object_summarizer(masks_BNHW, value_BNCHW))

    def gates(self, memory_BNKV: Tensor) -> tuple[Tensor, Tensor]:
        """How much of a memory is kept and how strongly it is corrected.

        Returns:
            alpha_BNKM and beta_BNKM, one value a key row and head.
        """
        decay_BNKM = log_decay(
            full_precision(memory_BNKV),
            full_precision(self.a_proj.weight),
            full_precision(self.A_log),
            full_precision(self.dt_bias),
        )
        beta_BNKM = write_gate(memory_BNKV, self.b_proj.weight)
        return alpha_of(decay_BNKM, self.config.alpha_rule), beta_BNKM

    def write(self, key_BKP: Tensor, value_BNCHW: Tensor, state: BaseState) -> Tensor:
        """The memory after a frame, memory_BNKV."""
        value_BNVP = value_BNCHW.flatten(3)
        alpha_BNKM, beta_BNKM = self.gates(state.memory_BNKV)
        is_official = self.config.alpha_rule is AlphaRule.OFFICIAL
        spread_alpha = tile_heads if is_official else interleave_heads
        alpha_BNKV = spread_alpha(alpha_BNKM, VALUE_WIDTH)
        beta_BNKV = interleave_heads(beta_BNKM, VALUE_WIDTH)
        after_BNKV = delta_step(state.memory_BNKV, key_BKP, value_BNVP, alpha_BNKV, beta_BNKV)
        first = state.is_start(after_BNKV)
        return torch.where(first, associate(key_BKP, value_BNVP), after_BNKV)

    def segment(
        self,
        features: ImageFeatures,
        readout_BNCHW: Tensor,
        masks_BNHW: Tensor,
        sensory_BNCHW: Tensor,
        objects_BNQC: Tensor,
    ) -> Segmentation:
        """Draw the structures of a frame.

        Args:
            features: of the frame itself.
            readout_BNCHW: the memory's answer on the stride-16 grid.
            masks_BNHW: soft masks of the frame before.
            sensory_BNCHW: the sensory map after the mask encoder.
            objects_BNQC: object memory, summed over the frames before.
        """
        fused_BNCHW = self.pixel_fuser(
            features.pixels_BCHW, readout_BNCHW, sensory_BNCHW, masks_BNHW
        )
        refined_BNCHW, query_logits_BNLHW = self.object_transformer(fused_BNCHW, objects_BNQC)
        quarter_BNHW, sensory_BNCHW = self.mask_decoder(
            refined_BNCHW, features.f8_BCHW, features.f4_BCHW, sensory_BNCHW
        )
        logits_BNHW = full_size_logits(quarter_BNHW)
        masks_BNHW = logits_BNHW.softmax(dim=1)[:, 1:]
        return Segmentation(logits_BNHW, masks_BNHW, sensory_BNCHW, query_logits_BNLHW)

    def auxiliary_logits(self, output: StepOutput) -> AuxiliaryLogits:
        """What the auxiliary losses compare with the masks.

        Raises:
            WeightsError: a network without its auxiliary head.
        """
        if self.aux_computer is None:
            raise WeightsError("this gdkvm-base has no auxiliary head; it cannot be trained on")
        return AuxiliaryLogits(
            self.aux_computer(output.pixels_BCHW, output.sensory_BNCHW),
            aggregate(torch.sigmoid(output.query_logits_BNLHW)),
        )
