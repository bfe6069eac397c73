"""What sees one frame: an image in, features at four strides out."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig

IMAGENET_MEAN, IMAGENET_SD = 0.449, 0.226
"""Of grey values in [0, 1]: torchvision's per-channel figures, averaged."""

MOBILE_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
)
"""Expansion, channels, blocks and first stride of each stage, as far as stride 16.

Source: Sandler et al. 2018, arXiv:1801.04381, table 2.
"""

MOBILE_TAPS = (1, 3, 6, 13)
"""The last block at strides 2, 4, 8 and 16."""


class Features(NamedTuple):
    """Encoder outputs at strides 2, 4, 8 and 16."""

    f2_BCHW: Tensor
    f4_BCHW: Tensor
    f8_BCHW: Tensor
    f16_BCHW: Tensor


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm, no activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv_norm(width, width)
        self.second = conv_norm(width, width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Same shape out as in."""
        y_BCHW = functional.relu(self.first(x_BCHW))
        return functional.relu(x_BCHW + self.second(y_BCHW))


class PlainEncoder(nn.Module):
    """A residual encoder to stride 16."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.down2 = conv_norm(1, w2, stride=2)
        self.block2 = ResidualBlock(w2)
        self.down4 = conv_norm(w2, w4, stride=2)
        self.block4 = ResidualBlock(w4)
        self.down8 = conv_norm(w4, w8, stride=2)
        self.block8 = nn.Sequential(ResidualBlock(w8), ResidualBlock(w8))
        self.down16 = conv_norm(w8, w16, stride=2)
        self.block16 = nn.Sequential(ResidualBlock(w16), ResidualBlock(w16))

    def forward(self, image_B1HW: Tensor) -> Features:
        """Grey values in [0, 1] in, features out."""
        f2 = self.block2(functional.relu(self.down2((image_B1HW - 0.25) / 0.25)))
        f4 = self.block4(functional.relu(self.down4(f2)))
        f8 = self.block8(functional.relu(self.down8(f4)))
        return Features(f2, f4, f8, self.block16(functional.relu(self.down16(f8))))


class InvertedBlock(nn.Module):
    """Widen, filter each channel, narrow, with torchvision's names of parameters.

    Source:
        Sandler et al. 2018, arXiv:1801.04381, section 3.3.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv_norm_relu6(inputs, wide, 1)]
        layers += [_conv_norm_relu6(wide, wide, 3, stride, groups=wide)]
        layers += [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features of the next block."""
        y_BCHW: Tensor = self.conv(x_BCHW)
        return x_BCHW + y_BCHW if self.is_residual else y_BCHW


def _conv_norm_relu6(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class MobileEncoder(nn.Module):
    """MobileNetV2 to stride 16, its outputs mapped to the network's widths."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv_norm_relu6(3, 32, 3, 2)]
        inputs, tapped = 32, []
        for expansion, outputs, count, stride in MOBILE_STAGES:
            for k in range(count):
                blocks.append(InvertedBlock(inputs, outputs, stride if k == 0 else 1, expansion))
                inputs = outputs
                if len(blocks) - 1 in MOBILE_TAPS:
                    tapped.append(outputs)
        self.features = nn.Sequential(*blocks)
        self.adapt = nn.ModuleList(
            conv_norm(inputs, outputs, 1) for inputs, outputs in zip(tapped, widths, strict=True)
        )

    def forward(self, image_B1HW: Tensor) -> Features:
        """Grey values in [0, 1] in, features out."""
        x_BCHW = ((image_B1HW - IMAGENET_MEAN) / IMAGENET_SD).expand(-1, 3, -1, -1)
        found: list[Tensor] = []
        for index, block in enumerate(self.features):
            x_BCHW = block(x_BCHW)
            if index in MOBILE_TAPS:
                found.append(functional.relu(self.adapt[len(found)](x_BCHW)))
        return Features(*found)


def make_encoder(config: ModelConfig) -> PlainEncoder | MobileEncoder:
    """The encoder that the configuration names."""
    if config.encoder == "mobilenet":
        return MobileEncoder(config.widths)
    return PlainEncoder(config.widths)
