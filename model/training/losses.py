"""What training minimises."""

import torch
from torch import Tensor
from torch.nn import functional

DICE_SMOOTH = 1.0


def segmentation_loss(
    logits_BNHW: Tensor, labels_BNHW: Tensor, known_BN: Tensor | None = None
) -> Tensor:
    """Cross-entropy plus soft Dice of the three structures, background in the cross-entropy only.

    Args:
        logits_BNHW: class scores, background first.
        labels_BNHW: soft labels that sum to 1 at every pixel.
        known_BN: which structures the labels tell, None where all; what they do not tell is
            background in them, and may be either in the scores.

    Source:
        Milletari et al. 2016, arXiv:1606.04797 (soft Dice with squared terms); Fang and Yan 2020,
        arXiv:2001.00208 (unknown structures merged with the background).
    """
    logits_BNHW = logits_BNHW.float()
    log_BNHW = functional.log_softmax(logits_BNHW, dim=1)
    if known_BN is not None:
        log_BNHW = _merged(log_BNHW, known_BN)
    cross_entropy = -(labels_BNHW * log_BNHW).sum(dim=1).mean()
    guess, truth = log_BNHW[:, 1:].exp(), labels_BNHW[:, 1:]
    overlap = (guess * truth).sum(dim=(2, 3))
    size = guess.square().sum(dim=(2, 3)) + truth.square().sum(dim=(2, 3))
    lost_BN = 1 - (2 * overlap + DICE_SMOOTH) / (size + DICE_SMOOTH)
    if known_BN is None:
        return cross_entropy + 0.5 * lost_BN.mean()
    # Image by image, so that the loss of a batch is the mean of those of its parts.
    lost_B = (lost_BN * known_BN).sum(dim=1) / known_BN.sum(dim=1)
    return cross_entropy + 0.5 * lost_B.mean()


def _merged(log_BNHW: Tensor, known_BN: Tensor) -> Tensor:
    """Log-probabilities whose background holds what the labels do not tell."""
    is_other_BN11 = functional.pad(~known_BN, (1, 0), value=True)[..., None, None]
    other_B1HW = log_BNHW.masked_fill(~is_other_BN11, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([other_B1HW, log_BNHW[:, 1:]], dim=1)


def presence_loss(presence_B: Tensor, truth_B: Tensor) -> Tensor:
    """Binary cross-entropy with a little label smoothing, so that the score stays calibrated."""
    smooth_B = truth_B * 0.98 + 0.01
    return functional.binary_cross_entropy_with_logits(presence_B.float(), smooth_B)


def total_loss(
    logits_BNHW: Tensor,
    presence_B: Tensor,
    labels_BNHW: Tensor,
    truth_B: Tensor,
    weight: float,
    known_BN: Tensor | None = None,
) -> Tensor:
    """Segmentation plus weighted presence loss; see both."""
    seen = segmentation_loss(logits_BNHW, labels_BNHW, known_BN)
    return seen + torch.as_tensor(weight) * presence_loss(presence_B, truth_B)
