"""Means of weights: over the steps of a run, and with weights that grew from the same ones."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from model.errors import WeightsError
from model.training.checkpoint import fill, read_weights
from model.training.config import TrainConfig


@torch.no_grad()
def follow(average: nn.Module, trained: nn.Module, step: int, decay: float) -> None:
    """Move averaged weights a little towards the trained ones, faster in the first steps.

    Args:
        average: changed in place.
        trained: of the same shape.
        step: how many steps the run had before this one.
        decay: what the average keeps of itself after many steps.
    """
    keep = min(decay, (1 + step) / (10 + step))
    theirs = trained.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(theirs[name], 1 - keep)
        else:
            value.copy_(theirs[name])


def weights_to_mix_in(like: nn.Module, config: TrainConfig) -> Mapping[str, Tensor]:
    """What a run's result is averaged with; nothing where its settings ask for no mean.

    Raises:
        WeightsError: they name no file, or one that is missing or broken, or its weights have
            another shape.
    """
    if not config.mean_share:
        return {}
    if not (config.mean_with or config.start):
        raise WeightsError("setting mean_share needs mean_with, or a start")
    path = Path(config.mean_with or config.start)
    other = copy.deepcopy(like)
    fill(other, read_weights(path), path)
    return other.state_dict()


@torch.no_grad()
def mix_in(average: nn.Module, others: Mapping[str, Tensor], share: float) -> None:
    """Average weights with those that ``weights_to_mix_in`` read.

    Args:
        average: changed in place; counts and other whole numbers stay its own.
        others: of the same shape, or none.
        share: of the others in the mean, 0 to 1.

    Source:
        Wortsman et al. 2022, arXiv:2109.01903 (a network trained further keeps, in the mean with
        its weights from before, more of what it knew).
    """
    own = average.state_dict()
    for name, theirs in others.items():
        if theirs.dtype.is_floating_point:
            own[name].lerp_(theirs, share)
