"""What training minimises."""

import torch
from torch import Tensor
from torch.nn import functional

DICE_SMOOTH = 1.0


def segmentation_loss(logits_BNHW: Tensor, labels_BNHW: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice of the three structures, background in the cross-entropy only.

    Args:
        logits_BNHW: class scores, background first.
        labels_BNHW: soft labels that sum to 1 at every pixel.

    Source:
        Milletari et al. 2016, arXiv:1606.04797 (soft Dice with squared terms).
    """
    logits_BNHW = logits_BNHW.float()
    log_BNHW = functional.log_softmax(logits_BNHW, dim=1)
    cross_entropy = -(labels_BNHW * log_BNHW).sum(dim=1).mean()
    guess, truth = log_BNHW[:, 1:].exp(), labels_BNHW[:, 1:]
    overlap = (guess * truth).sum(dim=(2, 3))
    size = guess.square().sum(dim=(2, 3)) + truth.square().sum(dim=(2, 3))
    dice = (2 * overlap + DICE_SMOOTH) / (size + DICE_SMOOTH)
    return cross_entropy + 0.5 * (1 - dice).mean()


def presence_loss(presence_B: Tensor, truth_B: Tensor) -> Tensor:
    """Binary cross-entropy with a little label smoothing, so that the score stays calibrated."""
    smooth_B = truth_B * 0.98 + 0.01
    return functional.binary_cross_entropy_with_logits(presence_B.float(), smooth_B)


def total_loss(
    logits_BNHW: Tensor, presence_B: Tensor, labels_BNHW: Tensor, truth_B: Tensor, weight: float
) -> Tensor:
    """Segmentation plus weighted presence loss."""
    return segmentation_loss(logits_BNHW, labels_BNHW) + torch.as_tensor(weight) * presence_loss(
        presence_B, truth_B
    )
