"""From pixels and masks to features, keys and values."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.base.blocks import FeatureFuser, other_masks, sensory_transform, updated_sensory
from model.base.config import KEY_WIDTH, VALUE_WIDTH
from model.base.resnet import basic_layer, bottleneck_layer, stem, to_stride_4

F16_WIDTH = 1024


def normalised(image_BCHW: Tensor) -> Tensor:
    """Grey values from [0, 1] to [-1, 1], as the published code has it."""
    return (image_BCHW - 0.5) / 0.5


class ImageFeatures(NamedTuple):
    """What a frame says by itself, before any memory.

    Attributes:
        f8_BCHW: encoder features at stride 8.
        f4_BCHW: encoder features at stride 4.
        pixels_BCHW: pixel features on the stride-16 grid.
        key_BKP: key and query, softmax over K at every position.
    """

    f8_BCHW: Tensor
    f4_BCHW: Tensor
    pixels_BCHW: Tensor
    key_BKP: Tensor


class ImageEncoder(nn.Module):
    """The stem and the first three layers of a ResNet-50 for one grey channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = stem(1)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = bottleneck_layer(64, 64, 1, blocks=3)
        self.layer2 = bottleneck_layer(256, 128, 2, blocks=4)
        self.layer3 = bottleneck_layer(512, 256, 2, blocks=6)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 16 (1024 channels), 8 (512) and 4 (256)."""
        f4_BCHW = self.layer1(to_stride_4(self.bn1(self.conv1(image_BCHW))))
        f8_BCHW = self.layer2(f4_BCHW)
        return self.layer3(f8_BCHW), f8_BCHW, f4_BCHW


class KeyProjector(nn.Module):
    """Two convolutions to the key width, nothing between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(F16_WIDTH, VALUE_WIDTH, 1)
        self.layer2 = nn.Conv2d(VALUE_WIDTH, KEY_WIDTH, 3, padding=1)

    def forward(self, f16_BCHW: Tensor) -> Tensor:
        """Keys without the pixel features, key_BCHW."""
        key_BCHW: Tensor = self.layer2(self.layer1(f16_BCHW))
        return key_BCHW


class PixelProjector(nn.Module):
    """A 1x1 convolution to the value width."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(F16_WIDTH, VALUE_WIDTH, 1)

    def forward(self, f16_BCHW: Tensor) -> Tensor:
        """Pixel features, pixels_BCHW."""
        pixels_BCHW: Tensor = self.layer(f16_BCHW)
        return pixels_BCHW


class KeyPixelFusion(nn.Module):
    """Key-pixel feature fusion: global context in the key, local detail where a gate asks for it.

    Source:
        Wang et al. 2025, arXiv:2512.10252 (KPFF).
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH, 1)
        self.layer2 = nn.Conv2d(VALUE_WIDTH, KEY_WIDTH, 3, padding=1)
        self.gate_layer = nn.Conv2d(KEY_WIDTH, 1, 1)

    def forward(self, key_BCHW: Tensor, pixels_BCHW: Tensor) -> Tensor:
        """Keys before their softmax, key_BCHW."""
        context_BCHW = key_BCHW + key_BCHW.mean(dim=(2, 3), keepdim=True)
        local_BCHW = self.layer2(functional.relu(self.layer1(pixels_BCHW)))
        gate_B1HW = torch.sigmoid(self.gate_layer(context_BCHW))
        return gate_B1HW * context_BCHW + (1 - gate_B1HW) * local_BCHW


class EncoderSensoryUpdater(nn.Module):
    """The first sensory update of a frame, from its values."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = sensory_transform()

    def forward(self, value_SCHW: Tensor, sensory_SCHW: Tensor) -> Tensor:
        """The next sensory map."""
        gates_SCHW = self.transform(torch.cat([value_SCHW, sensory_SCHW], dim=1))
        return updated_sensory(gates_SCHW, sensory_SCHW)


class MaskEncoder(nn.Module):
    """The stem and the first three layers of a ResNet-18 over image, mask and other masks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = stem(3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = basic_layer(64, 64, 1)
        self.layer2 = basic_layer(64, 128, 2)
        self.layer3 = basic_layer(128, VALUE_WIDTH, 2)
        self.fuser = FeatureFuser()
        self.sensory_updater = EncoderSensoryUpdater()

    def forward(
        self, image_BCHW: Tensor, pixels_BCHW: Tensor, masks_BNHW: Tensor, sensory_BNCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode what a frame should leave in the memory.

        Args:
            image_BCHW: one normalised grey channel.
            pixels_BCHW: pixel features of the frame that the masks belong to.
            masks_BNHW: soft masks in [0, 1].
            sensory_BNCHW: the sensory map before.

        Returns:
            value_BNCHW and the sensory map after.
        """
        batch_structures = masks_BNHW.shape[:2]
        image_BNHW = image_BCHW.expand(-1, masks_BNHW.shape[1], -1, -1)
        seen_BNCHW = torch.stack([image_BNHW, masks_BNHW, other_masks(masks_BNHW)], dim=2)
        y_SCHW = to_stride_4(self.bn1(self.conv1(seen_BNCHW.flatten(0, 1))))
        y_SCHW = self.layer3(self.layer2(self.layer1(y_SCHW)))
        value_BNCHW = self.fuser(pixels_BCHW, y_SCHW.unflatten(0, batch_structures))
        sensory_SCHW = self.sensory_updater(value_BNCHW.flatten(0, 1), sensory_BNCHW.flatten(0, 1))
        return value_BNCHW, sensory_SCHW.unflatten(0, batch_structures)
