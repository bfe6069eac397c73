"""Reading what a run or a release left behind, with the first difference named."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.base.checkpoint import UNREADABLE, check_entries
from model.config import ModelConfig
from model.encoder import MobileEncoder
from model.errors import WeightsError
from model.network import LiveNetwork

PARTS = {"network": dict, "average": dict, "optimizer": dict, "step": int, "model_config": str}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``model.training.loop.save`` wrote, nothing in it executed.

    Raises:
        WeightsError: no such file, one cut short, or not a checkpoint of a training run.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # torch's own words advise to read it in the way that executes what is in it.
        told = error.strerror if isinstance(error, OSError) else None
        reason = told or "it is no PyTorch file, cut short, or holds code"
        raise WeightsError(f"{path} is not a checkpoint of a training run: {reason}") from error
    for name, kind in PARTS.items():
        if not isinstance(saved, dict) or not isinstance(saved.get(name), kind):
            raise WeightsError(f"{path} is not a checkpoint of a training run: it has no {name!r}")
    return saved


def read_config(saved: dict[str, Any], path: Path) -> ModelConfig:
    """The shape that a checkpoint's network has.

    Raises:
        WeightsError: a shape that this version cannot build.
    """
    try:
        return ModelConfig.from_json(json.loads(saved["model_config"]))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} holds a shape that cannot be read: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint, or those of a shipped safetensors file.

    Raises:
        WeightsError: no such file, or one that is broken.
    """
    if path.suffix != ".safetensors":
        weights: dict[str, Tensor] = read_checkpoint(path)["average"]
        return weights
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error


def fill(network: nn.Module, entries: dict[str, Tensor], path: Path) -> None:
    """Load weights into a network of the same shape.

    Raises:
        WeightsError: another shape; the first entry that differs is named.
    """
    check_entries(entries, network, path.name)
    network.load_state_dict(entries)


def load_imagenet(network: LiveNetwork, folder: Path) -> None:
    """Start the encoder from torchvision's MobileNetV2, as far as stride 16.

    Args:
        network: changed in place.
        folder: holds ``mobilenet_v2-*.pth``.

    Raises:
        WeightsError: the file is missing or not what its name says, or the encoder is another.
    """
    encoder = network.encoder
    if not isinstance(encoder, MobileEncoder):
        raise WeightsError('setting imagenet needs encoder = "mobilenet"')
    path, entries = read_imagenet(folder, "mobilenet_v2")
    own, prefix = encoder.features.state_dict(), "features."
    # What lies deeper than stride 16, and the classifier, are not wanted.
    taken = {name: entries[prefix + name] for name in own if prefix + name in entries}
    check_entries(taken, encoder.features, path.name)
    encoder.features.load_state_dict(taken)


def read_imagenet(folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """The file ``NAME-*.pth`` of torchvision in a folder, and what it holds.

    Raises:
        WeightsError: it is missing or broken.
    """
    found = sorted(folder.glob(f"{name}-*.pth"))
    if not found:
        raise WeightsError(f"{folder} holds no {name}-*.pth")
    try:
        entries = torch.load(found[0], map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise WeightsError(f"{found[0]} cannot be read: {error}") from error
    if not isinstance(entries, dict):
        raise WeightsError(f"{found[0]} holds no state dict")
    return found[0], entries
