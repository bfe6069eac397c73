"""What training minimises."""

import torch
from torch import Tensor
from torch.nn import functional

DICE_SMOOTH = 1.0

REGIONS = ((True, False, False), (True, True, False), (False, False, True))
"""What soft Dice is taken of, as sums of the structures: inside the endocardium, inside the
epicardium, the atrium.

Soft Dice with squared terms is least where a pixel that belongs to a region with probability q is
given q / D, at a Dice of D. The wall is thin, so that its D is low: taken by itself it claims more
than annotators draw of it, and takes that from the ventricle on its inner side.
"""


def segmentation_loss(
    logits_BNHW: Tensor, labels_BNHW: Tensor, known_BN: Tensor | None = None
) -> Tensor:
    """Cross-entropy plus half of the mean soft Dice loss of the regions.

    Args:
        logits_BNHW: class scores, background first.
        labels_BNHW: soft labels that sum to 1 at every pixel.
        known_BN: which structures the labels tell, None where all; what they do not tell is
            background in them, and may be either in the scores.

    Source:
        Milletari et al. 2016, arXiv:1606.04797 (soft Dice with squared terms); Isensee et al. 2020,
        arXiv:2011.00848 (nested regions in place of structures); Fang and Yan 2020,
        arXiv:2001.00208 (unknown structures merged with the background).
    """
    logits_BNHW = logits_BNHW.float()
    log_BNHW = functional.log_softmax(logits_BNHW, dim=1)
    if known_BN is not None:
        log_BNHW = _merged(log_BNHW, known_BN)
    cross_entropy = -(labels_BNHW * log_BNHW).sum(dim=1).mean()
    guess_BRHW, truth_BRHW = _regions(log_BNHW.exp()), _regions(labels_BNHW)
    overlap_BR = (guess_BRHW * truth_BRHW).sum(dim=(2, 3))
    size_BR = guess_BRHW.square().sum(dim=(2, 3)) + truth_BRHW.square().sum(dim=(2, 3))
    lost_BR = 1 - (2 * overlap_BR + DICE_SMOOTH) / (size_BR + DICE_SMOOTH)
    if known_BN is None:
        return cross_entropy + 0.5 * lost_BR.mean()
    # A region is known where all of its structures are.
    known_BR = (known_BN[:, None] | ~_members(known_BN)).all(dim=2)
    # Image by image, so that the loss of a batch is the mean of those of its parts.
    lost_B = (lost_BR * known_BR).sum(dim=1) / known_BR.sum(dim=1).clamp(min=1)
    return cross_entropy + 0.5 * lost_B.mean()


def _members(like: Tensor) -> Tensor:
    """members_RN: the structures of each region."""
    return torch.tensor(REGIONS, device=like.device)


def _regions(maps_BNHW: Tensor) -> Tensor:
    """maps_BRHW of the regions; the background comes first and is in none of them."""
    members_RN = _members(maps_BNHW).to(maps_BNHW)
    return torch.einsum("rn,bnhw->brhw", members_RN, maps_BNHW[:, 1:])


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
