import math

import pytest
import torch
from torch import Tensor

from model.training.losses import presence_loss, segmentation_loss, total_loss


def one_hot(labels_BHW: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels_BHW, 4).permute(0, 3, 1, 2).float()


def some_labels() -> Tensor:
    labels_BHW = torch.zeros(2, 8, 8, dtype=torch.long)
    labels_BHW[:, 2:6, 2:6] = 1
    labels_BHW[0, 6:, :] = 2
    labels_BHW[1, :2, :] = 3
    return one_hot(labels_BHW)


def test_a_sure_and_right_answer_costs_nothing() -> None:
    labels = some_labels()
    assert float(segmentation_loss(100 * labels, labels)) == pytest.approx(0.0, abs=1e-5)


def test_an_undecided_answer_costs_the_logarithm_of_four_and_the_closed_dice() -> None:
    labels = some_labels()
    pixels = 64
    dice = []
    for ventricle, wall, atrium in labels[:, 1:].sum(dim=(2, 3)).tolist():
        for size, guess in ((ventricle, 1 / 4), (ventricle + wall, 2 / 4), (atrium, 1 / 4)):
            # overlap size * guess, guess squared in every pixel, truth squared size
            dice.append((2 * size * guess + 1) / (pixels * guess**2 + size + 1))
    wanted = math.log(4) + 0.5 * (1 - sum(dice) / len(dice))
    found = segmentation_loss(torch.zeros(2, 4, 8, 8), labels)
    assert float(found) == pytest.approx(wanted, rel=1e-6)


def test_a_sure_and_wrong_answer_costs_its_margin_and_all_of_the_dice() -> None:
    truth = one_hot(torch.ones(1, 8, 8, dtype=torch.long))
    guess = one_hot(torch.full((1, 8, 8), 2))
    # cross-entropy: the margin of 50; Dice 1/65 for the ventricle, and 1 for the atrium, which is
    # in neither, and inside the epicardium, where both say so of every pixel
    wanted = 50.0 + 0.5 * (1 - (1 / 65 + 1 + 1) / 3)
    assert float(segmentation_loss(50 * guess, truth)) == pytest.approx(wanted, rel=1e-6)


def test_an_edge_drawn_on_either_side_as_often_is_not_pushed_into_the_ventricle() -> None:
    # A row of ventricle, wall and background, drawn twice: of the pixels between two of them every
    # second one belongs to the inner one in the first drawing, the others in the second.
    drawings = [[1] * 20, [1] * 20]
    for inner, outer in ((1, 2), (2, 0)):
        drawings[0] += [inner, outer] * 4 + [outer] * 3
        drawings[1] += [outer, inner] * 4 + [outer] * 3
    labels = one_hot(torch.tensor(drawings)[:, None])
    # The guess is how often each structure was drawn, where cross-entropy is least.
    scores = labels.mean(dim=0, keepdim=True).clamp(min=1e-9).log().requires_grad_()
    segmentation_loss(scores.expand(2, -1, -1, -1), labels).backward()
    assert scores.grad is not None
    _, ventricle, wall, _ = scores.grad[0, :, 0, 20:28]
    assert torch.all(ventricle <= 0)
    assert torch.all(wall >= 0)


def test_soft_labels_cost_at_least_their_own_entropy() -> None:
    soft = torch.tensor([0.4, 0.3, 0.2, 0.1])[None, :, None, None].expand(1, 4, 8, 8)
    entropy = -sum(p * math.log(p) for p in (0.4, 0.3, 0.2, 0.1))
    guess, truth = soft[:, 1:], soft[:, 1:]
    overlap = (guess * truth).sum(dim=(2, 3))
    dice = (2 * overlap + 1) / (2 * overlap + 1)
    wanted = entropy + 0.5 * float((1 - dice).mean())
    assert float(segmentation_loss(soft.log(), soft)) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("score", "truth"), [(0.0, 1.0), (2.0, 1.0), (2.0, 0.0), (-3.0, 0.0)])
def test_presence_costs_cross_entropy_against_a_truth_one_percent_short(
    score: float, truth: float
) -> None:
    target = 0.99 if truth else 0.01
    sure = 1 / (1 + math.exp(-score))
    wanted = -target * math.log(sure) - (1 - target) * math.log(1 - sure)
    found = presence_loss(torch.tensor([score]), torch.tensor([truth]))
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_the_total_adds_the_presence_by_its_weight() -> None:
    labels, presence, truth = some_labels(), torch.tensor([1.0, -1.0]), torch.tensor([1.0, 0.0])
    logits = torch.linspace(-1, 1, 2 * 4 * 64).reshape(2, 4, 8, 8)
    both = float(total_loss(logits, presence, labels, truth, 0.25))
    parts = segmentation_loss(logits, labels) + 0.25 * presence_loss(presence, truth)
    assert both == pytest.approx(float(parts), rel=1e-6)


def test_losses_of_half_precision_scores_are_finite_and_have_gradients() -> None:
    logits = (40 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))).bfloat16()
    logits.requires_grad_()
    loss = total_loss(
        logits, torch.tensor([300.0, -300.0]).bfloat16(), some_labels(), torch.ones(2), 0.1
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_structure_that_labels_do_not_tell_may_be_background_or_itself() -> None:
    # one pixel, probabilities 0.1, 0.4, 0.3, 0.2; the label says: no ventricle
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log().reshape(1, 4, 1, 1)
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    known = torch.tensor([[True, False, False]])
    # cross-entropy of 0.1 + 0.3 + 0.2, and soft Dice of the ventricle alone: 1 / (0.16 + 1)
    expected = -math.log(0.6) + 0.5 * (1 - 1 / 1.16)
    loss = segmentation_loss(logits, labels, known)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_where_all_structures_are_known_nothing_changes() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 5, 5)
    labels = torch.rand(3, 4, 5, 5).softmax(dim=1)
    everything = torch.ones(3, 3, dtype=torch.bool)
    torch.testing.assert_close(
        segmentation_loss(logits, labels, everything), segmentation_loss(logits, labels)
    )


def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_parts_whatever_they_know() -> None:
    logits = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, known = some_labels(), torch.tensor([[True, False, False], [True, True, True]])
    parts = [
        float(segmentation_loss(*(each[k : k + 1] for each in (logits, labels, known))))
        for k in (0, 1)
    ]
    whole = float(segmentation_loss(logits, labels, known))
    assert whole == pytest.approx(sum(parts) / 2, rel=1e-6)


def test_scores_of_what_is_not_known_get_no_gradient_between_them() -> None:
    logits = torch.zeros(1, 4, 1, 1, requires_grad=True)
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    segmentation_loss(logits, labels, torch.tensor([[True, False, False]])).backward()
    assert logits.grad is not None
    background, lv, wall, atrium = logits.grad.flatten().tolist()
    assert background == pytest.approx(wall)
    assert wall == pytest.approx(atrium)
    assert lv > 0 > wall
