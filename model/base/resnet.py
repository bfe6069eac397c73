"""The residual networks that read images (ResNet-50) and masks (ResNet-18), each to stride 16.

Source:
    He et al. 2015, arXiv:1512.03385, table 1; the bottleneck's stride sits on its 3x3 convolution.
"""

from torch import Tensor, nn
from torch.nn import functional

BOTTLENECK_EXPANSION = 4


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The projection around a block, where size or width changes."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Half the size where the stride is 2."""
        y_BCHW = functional.relu(self.bn1(self.conv1(x_BCHW)))
        y_BCHW = self.bn2(self.conv2(y_BCHW))
        around_BCHW = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return functional.relu(y_BCHW + around_BCHW)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = BOTTLENECK_EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Half the size where the stride is 2."""
        y_BCHW = functional.relu(self.bn1(self.conv1(x_BCHW)))
        y_BCHW = functional.relu(self.bn2(self.conv2(y_BCHW)))
        y_BCHW = self.bn3(self.conv3(y_BCHW))
        around_BCHW = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return functional.relu(y_BCHW + around_BCHW)


def basic_layer(inputs: int, width: int, stride: int) -> nn.Sequential:
    """One layer of a ResNet-18: two basic blocks."""
    return nn.Sequential(BasicBlock(inputs, width, stride), BasicBlock(width, width, 1))


def bottleneck_layer(inputs: int, width: int, stride: int, blocks: int) -> nn.Sequential:
    """One layer of a ResNet-50."""
    first = Bottleneck(inputs, width, stride)
    outputs = BOTTLENECK_EXPANSION * width
    return nn.Sequential(first, *(Bottleneck(outputs, width, 1) for _ in range(blocks - 1)))


def stem(inputs: int) -> nn.Conv2d:
    """The 7x7 convolution of stride 2 in front."""
    return nn.Conv2d(inputs, 64, 7, 2, 3, bias=False)


def to_stride_4(y_BCHW: Tensor) -> Tensor:
    """What follows the stem's batch norm: ReLU and a 3x3 maximum of stride 2."""
    return functional.max_pool2d(functional.relu(y_BCHW), 3, 2, 1)
