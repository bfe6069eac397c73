"""Reading what a run or a release left behind, with the first difference named."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.base.checkpoint import UNREADABLE, check_entries
from model.config import ModelConfig
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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
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


def fill(network: LiveNetwork, entries: dict[str, Tensor], path: Path) -> None:
    """Load weights into a network of the same shape.

    Raises:
        WeightsError: another shape; the first entry that differs is named.
    """
    check_entries(entries, network, path.name)
    network.load_state_dict(entries)
