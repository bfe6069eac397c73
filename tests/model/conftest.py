"""A tiny network with fixed random weights, exported once for all tests of the serving path."""

from pathlib import Path

import pytest

from model.config import ModelConfig
from model.predictor import Predictor, load_predictor

TINY = ModelConfig(
    network_size=48, widths=(4, 8, 8, 16), key_width=8, heads=2, value_width=4, sensory_width=8
)


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return TINY


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the training loop writes it."""
    # Imported here because torch takes seconds, and most tests beside this file need none of it.
    import torch

    from model.network import LiveNetwork
    from model.training.loop import Run, save

    torch.set_num_threads(1)
    torch.manual_seed(7)
    network = LiveNetwork(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    optimizer = torch.optim.AdamW(network.parameters())
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    save(Run(network, network, optimizer, 0), TINY, path)
    return path


@pytest.fixture(scope="session")
def tiny_weights(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with the manifest, parameters and exported step of the tiny network."""
    from model.training.export import ship

    folder = tmp_path_factory.mktemp("weights")
    ship(tiny_checkpoint, folder, "tiny", "0.1.0")
    return folder


@pytest.fixture(scope="session")
def tiny_predictor(tiny_weights: Path) -> Predictor:
    return load_predictor(folder=tiny_weights, streams=2, threads=2, precision="f32")
