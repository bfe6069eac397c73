"""From the memory's answer to masks at full size."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.base.blocks import (
    FeatureFuser,
    aggregate,
    other_masks,
    sensory_transform,
    to_grid,
    updated_sensory,
)
from model.base.config import VALUE_WIDTH

F8_WIDTH = 512
F4_WIDTH = 256
UP_WIDTH = 128
LOGIT_STRIDE = 4


class PixelFuser(nn.Module):
    """Add sensory map and last masks to the memory's answer, and fuse it with the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.fuser = FeatureFuser()
        self.conv = nn.Conv2d(VALUE_WIDTH + 2, VALUE_WIDTH, 1)

    def forward(
        self, pixels_BCHW: Tensor, readout_BNCHW: Tensor, sensory_BNCHW: Tensor, masks_BNHW: Tensor
    ) -> Tensor:
        """fused_BNCHW on the stride-16 grid; the masks come at full size."""
        mask_BNHW = to_grid(masks_BNHW)
        last_BNCHW = torch.stack([mask_BNHW, other_masks(mask_BNHW)], dim=2)
        context_BNCHW = torch.cat([sensory_BNCHW, last_BNCHW], dim=2)
        context_SCHW = self.conv(context_BNCHW.flatten(0, 1))
        answer_BNCHW = readout_BNCHW + context_SCHW.unflatten(0, masks_BNHW.shape[:2])
        fused_BNCHW: Tensor = self.fuser(pixels_BCHW, answer_BNCHW)
        return fused_BNCHW


class UpBlock(nn.Module):
    """Twice the size, a skip added, two convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.linear_proj = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x_BNCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        """y_BNCHW; the skip belongs to the frame and is shared by its structures."""
        batch_structures = x_BNCHW.shape[:2]
        up_SCHW = functional.interpolate(
            x_BNCHW.flatten(0, 1), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        z_BNCHW = up_SCHW.unflatten(0, batch_structures) + skip_BCHW[:, None]
        z_SCHW = z_BNCHW.flatten(0, 1)
        branch_SCHW = functional.gelu(self.conv2(functional.gelu(self.conv1(z_SCHW))))
        around_SCHW = z_SCHW if self.linear_proj is None else self.linear_proj(z_SCHW)
        return (around_SCHW + branch_SCHW).unflatten(0, batch_structures)


class DecoderSensoryUpdater(nn.Module):
    """The second sensory update of a frame, from the decoder's maps at strides 16, 8 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.g16_conv = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH, 1)
        self.g8_conv = nn.Conv2d(UP_WIDTH, VALUE_WIDTH, 1)
        self.g4_conv = nn.Conv2d(UP_WIDTH + 1, VALUE_WIDTH, 1)
        self.transform = sensory_transform()

    def forward(
        self, v16_SCHW: Tensor, v8_SCHW: Tensor, v4_SCHW: Tensor, sensory_SCHW: Tensor
    ) -> Tensor:
        """The next sensory map; ``v4_SCHW`` carries the logit as its last channel."""
        seen_SCHW = (
            self.g16_conv(v16_SCHW)
            + self.g8_conv(functional.avg_pool2d(v8_SCHW, 2))
            + self.g4_conv(functional.avg_pool2d(v4_SCHW, 4))
        )
        gates_SCHW = self.transform(torch.cat([seen_SCHW, sensory_SCHW], dim=1))
        return updated_sensory(gates_SCHW, sensory_SCHW)


class MaskDecoder(nn.Module):
    """Refined pixels to foreground log-odds at stride 4, and the sensory map after the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_proj_f8 = nn.Conv2d(F8_WIDTH, VALUE_WIDTH, 1)
        self.linear_proj_f4 = nn.Conv2d(F4_WIDTH, UP_WIDTH, 1)
        self.upsample_16_to_8 = UpBlock(VALUE_WIDTH, UP_WIDTH)
        self.upsample_8_to_4 = UpBlock(UP_WIDTH, UP_WIDTH)
        self.pred = nn.Conv2d(UP_WIDTH, 1, 1)
        self.sensory_updater = DecoderSensoryUpdater()

    def forward(
        self, v16_BNCHW: Tensor, f8_BCHW: Tensor, f4_BCHW: Tensor, sensory_BNCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """logits_BNHW at stride 4 and sensory_BNCHW."""
        batch_structures = v16_BNCHW.shape[:2]
        v8_BNCHW = self.upsample_16_to_8(v16_BNCHW, self.linear_proj_f8(f8_BCHW))
        v4_BNCHW = self.upsample_8_to_4(v8_BNCHW, self.linear_proj_f4(f4_BCHW))
        v4_SCHW = v4_BNCHW.flatten(0, 1)
        logit_S1HW = self.pred(v4_SCHW)
        sensory_SCHW = self.sensory_updater(
            v16_BNCHW.flatten(0, 1),
            v8_BNCHW.flatten(0, 1),
            torch.cat([v4_SCHW, logit_S1HW], dim=1),
            sensory_BNCHW.flatten(0, 1),
        )
        logits_BNHW = logit_S1HW[:, 0].unflatten(0, batch_structures)
        return logits_BNHW, sensory_SCHW.unflatten(0, batch_structures)


def full_size_logits(logits_BNHW: Tensor) -> Tensor:
    """Log-odds of background and structures at full size from foreground log-odds at stride 4."""
    odds_BNHW = aggregate(torch.sigmoid(logits_BNHW))
    return functional.interpolate(
        odds_BNHW, scale_factor=float(LOGIT_STRIDE), mode="bilinear", align_corners=False
    )


class SensoryAuxiliary(nn.Module):
    """Every position's sensory vector becomes a linear classifier of the pixel features there."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH + 1, 1)

    def forward(self, pixels_BCHW: Tensor, sensory_BNCHW: Tensor) -> Tensor:
        """logits_BNHW on the stride-16 grid."""
        weights_SCHW = self.projection(sensory_BNCHW.flatten(0, 1))
        weights_BNCHW = weights_SCHW.unflatten(0, sensory_BNCHW.shape[:2])
        product_BNHW = (pixels_BCHW[:, None] * weights_BNCHW[:, :, :-1]).sum(dim=2)
        return product_BNHW + weights_BNCHW[:, :, -1]


class AuxiliaryHead(nn.Module):
    """What only the training loss looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.sensory_aux = SensoryAuxiliary()

    def forward(self, pixels_BCHW: Tensor, sensory_BNCHW: Tensor) -> Tensor:
        """Log-odds of background and structures on the stride-16 grid."""
        return aggregate(torch.sigmoid(self.sensory_aux(pixels_BCHW, sensory_BNCHW)))
