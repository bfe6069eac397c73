"""Both encoders: their strides, and MobileNetV2 as its authors count it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from model.config import ENCODERS, ModelConfig
from model.encoder import MOBILE_STAGES, MobileEncoder, make_encoder
from model.errors import WeightsError
from model.network import LiveNetwork
from model.training.checkpoint import load_imagenet

WIDTHS = (4, 8, 12, 16)
REMAINING_STAGES = ((6, 160, 3, 2), (6, 320, 1, 1))
WHOLE_MOBILENET = 3_504_872
"""Parameters of torchvision's mobilenet_v2, by its documentation."""


def shape(encoder: str) -> ModelConfig:
    return ModelConfig(network_size=48, widths=WIDTHS, encoder=encoder)


def count(stages: tuple[tuple[int, int, int, int], ...]) -> int:
    """Parameters of the stem and of stages, layer by layer as table 2 of the paper lists them."""
    inputs, total = 32, 3 * 32 * 9 + 2 * 32
    for expansion, outputs, blocks, _ in stages:
        for _ in range(blocks):
            wide = expansion * inputs
            widening = 0 if expansion == 1 else inputs * wide + 2 * wide
            total += widening + 9 * wide + 2 * wide + wide * outputs + 2 * outputs
            inputs = outputs
    return total


@pytest.mark.parametrize("name", ENCODERS)
def test_features_come_at_four_strides_in_the_networks_widths(name: str) -> None:
    features = make_encoder(shape(name)).eval()(torch.rand(2, 1, 48, 48))
    wanted = [(2, width, 48 // s, 48 // s) for width, s in zip(WIDTHS, (2, 4, 8, 16), strict=True)]
    assert [tuple(each.shape) for each in features] == wanted


def test_mobilenet_has_as_many_parameters_as_its_authors_table_says() -> None:
    head = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert count((*MOBILE_STAGES, *REMAINING_STAGES)) + head == WHOLE_MOBILENET
    encoder = MobileEncoder(WIDTHS)
    assert sum(p.numel() for p in encoder.features.parameters()) == count(MOBILE_STAGES)


def test_an_encoder_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(WeightsError, match="plain, mobilenet, got 'resnet'"):
        shape("resnet")


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """A folder with a file in torchvision's layout, deeper than stride 16 and with a classifier."""
    torch.manual_seed(3)
    encoder = MobileEncoder(WIDTHS)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter)
    saved = {f"features.{name}": value for name, value in encoder.features.state_dict().items()}
    saved |= {"features.14.conv.0.0.weight": torch.zeros(1), "classifier.1.bias": torch.zeros(1000)}
    torch.save(saved, tmp_path / "mobilenet_v2-b0353104.pth")
    return tmp_path


def test_an_encoder_starts_from_imagenet(imagenet: Path) -> None:
    network = LiveNetwork(shape("mobilenet"))
    load_imagenet(network, imagenet)
    saved = torch.load(imagenet / "mobilenet_v2-b0353104.pth", weights_only=True)
    assert isinstance(network.encoder, MobileEncoder)
    for name, value in network.encoder.features.state_dict().items():
        assert torch.equal(value, saved[f"features.{name}"]), name


def test_a_plain_encoder_has_no_start_from_imagenet(imagenet: Path) -> None:
    with pytest.raises(WeightsError, match='encoder = "mobilenet"'):
        load_imagenet(LiveNetwork(shape("plain")), imagenet)


def test_a_file_of_another_network_is_refused(imagenet: Path) -> None:
    path = imagenet / "mobilenet_v2-b0353104.pth"
    torch.save({"features.0.0.weight": torch.zeros(32, 3, 3, 3)}, path)
    with pytest.raises(WeightsError, match=r"lacks '0\.1\.weight'"):
        load_imagenet(LiveNetwork(shape("mobilenet")), imagenet)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="no state dict"):
        load_imagenet(LiveNetwork(shape("mobilenet")), imagenet)
    path.write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_imagenet(LiveNetwork(shape("mobilenet")), imagenet)
    path.unlink()
    with pytest.raises(WeightsError, match=r"holds no mobilenet_v2-\*\.pth"):
        load_imagenet(LiveNetwork(shape("mobilenet")), imagenet)
