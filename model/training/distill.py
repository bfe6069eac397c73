"""Soft labels: what networks that never saw a patient say of its stills.

One annotator draws every still once, and another would draw it a little differently. Networks that
were trained on the other folds average over the habits of many drawings; mixed with the
annotator's label, their probabilities teach where an outline is certain and where it is not.

    python -m model.training.distill DATA OUT.npz CHECKPOINT...

The checkpoints are those of runs with ``folds`` and ``fold``, in the order of their folds.

Source:
    Hinton et al. 2015, arXiv:1503.02531 (distillation); cross-fitted so that no network labels what
    it was trained on.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.errors import WeightsError
from model.network import LiveNetwork
from model.training.checkpoint import fill, read_checkpoint, read_config
from model.training.clips import Patient, Still
from model.training.patients import folds_of, read_studies
from model.training.sets import open_set

VIEWS = ((0.0, 1.0), (-6.0, 1.0), (6.0, 1.0), (0.0, 0.92), (0.0, 1.08))
"""Rotation in degrees and zoom of the views over which a prediction is averaged."""

CHUNK = 64
"""Stills predicted at once."""


def load(checkpoint: Path, device: torch.device) -> LiveNetwork:
    """The averaged network of a training run, ready to predict.

    Raises:
        WeightsError: no such checkpoint, or a broken one.
    """
    saved = read_checkpoint(checkpoint)
    network = LiveNetwork(read_config(saved, checkpoint))
    fill(network, saved["average"], checkpoint)
    return network.to(device).eval()


@torch.no_grad()
def predict(network: LiveNetwork, images_BHW: Tensor) -> Tensor:
    """Probabilities of stills, averaged over ``VIEWS``, each fed twice.

    Args:
        network: as ``load`` gives it.
        images_BHW: grey values in [0, 1] on the network's grid.

    Returns:
        probabilities_BNHW, background first.
    """
    batch, total = images_BHW.shape[0], torch.zeros(())
    for degrees, zoom in VIEWS:
        turn = math.radians(degrees)
        rotation = torch.tensor(
            [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        )
        there, back = rotation / zoom, rotation.T * zoom
        seen_B1HW = _turned(images_BHW[:, None], there)
        clip_BTHW = seen_B1HW.expand(-1, 2, -1, -1)
        logits = network.clip(clip_BTHW, network.initial_state(batch))[0][:, -1]
        structures = _turned(logits.softmax(dim=1)[:, 1:], back)
        total = total.to(structures.device) + structures / len(VIEWS)
    return torch.cat([1 - total.sum(dim=1, keepdim=True), total], dim=1)


def _turned(images_BNHW: Tensor, matrix: Tensor) -> Tensor:
    theta = torch.cat([matrix, torch.zeros(2, 1)], dim=1).to(images_BNHW)
    places = functional.affine_grid(
        theta.expand(images_BNHW.shape[0], 2, 3), list(images_BNHW.shape), align_corners=False
    )
    return functional.grid_sample(images_BNHW, places, align_corners=False)


def label(
    data: Path, checkpoints: Sequence[Path], out: Path, device: torch.device, workers: int = 1
) -> dict[str, float]:
    """Write the soft labels of all training patients, each by the network of its own fold.

    Returns:
        Mean Dice of each structure against the annotator, on patients never trained on.

    Raises:
        FrameError: the data are incomplete.
        WeightsError: a checkpoint is broken, or they are of several sizes.
    """
    networks = [load(path, device) for path in checkpoints]
    sides = {network.config.network_size for network in networks}
    if len(sides) != 1:
        raise WeightsError(f"the checkpoints are of several input sizes: {sorted(sides)}")
    side = sides.pop()
    found = open_set(data)
    found.check()
    studies = found.of_split("train")
    patients = read_studies(studies, 2 * side, found.known, workers=workers)
    stills = [still for patient in patients for still in (patient.ed, patient.es)]
    said_XHWN = np.zeros((len(stills), side, side, 3), np.float32)
    fold_of = folds_of(studies, len(networks))
    fold_X = np.repeat([fold_of[study.patient] for study in studies], 2)
    for fold, network in enumerate(networks):
        of_fold = np.flatnonzero(fold_X == fold)
        for first in range(0, len(of_fold), CHUNK):
            chosen = of_fold[first : first + CHUNK]
            images = np.stack([_shrunk(stills[x].image_HW, side) for x in chosen])
            probabilities = predict(network, torch.from_numpy(images).to(device) / 255.0)
            said_XHWN[chosen] = probabilities[:, 1:].permute(0, 2, 3, 1).cpu().numpy()
    truth_XHWN = np.stack([_shrunk(still.labels_HWN, side)[..., 1:] > 127 for still in stills])
    labels_PSHWN = np.rint(255 * said_XHWN).astype(np.uint8).reshape(-1, 2, side, side, 3)
    names = np.array([patient.name for patient in patients])
    np.savez_compressed(out, names=names, labels_PSHWN=labels_PSHWN)
    return _dice(said_XHWN > 0.5, truth_XHWN)


def _dice(guess_XHWN: NDArray[np.bool_], truth_XHWN: NDArray[np.bool_]) -> dict[str, float]:
    overlap_XN = 2 * (guess_XHWN & truth_XHWN).sum(axis=(1, 2))
    size_XN = guess_XHWN.sum(axis=(1, 2)) + truth_XHWN.sum(axis=(1, 2))
    dice_XN = overlap_XN / np.maximum(size_XN, 1)
    return {
        f"{name}_{phase}": round(float(dice_XN[s::2, n].mean()), 4)
        for n, name in enumerate(("lv", "myocardium", "atrium"))
        for s, phase in enumerate(("ed", "es"))
    }


def _shrunk(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def soften(patients: Sequence[Patient], file: Path, share: float) -> list[Patient]:
    """Mix soft labels into those of the annotator.

    Args:
        patients: as the annotator drew them.
        file: what ``label`` wrote.
        share: of the soft label, 0 to 1.

    Raises:
        WeightsError: no such file, or one that lacks a patient.
    """
    try:
        with np.load(file) as saved:
            names, labels_PSHWN = saved["names"].tolist(), saved["labels_PSHWN"]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{file} holds no soft labels: {error}") from error
    place = {name: k for k, name in enumerate(names)}
    missing = [patient.name for patient in patients if patient.name not in place]
    if missing:
        raise WeightsError(f"{file} has no soft labels of {missing[:20]}")
    mixed = []
    for patient in patients:
        # What the annotator never drew, no network has learnt either.
        ed, es = labels_PSHWN[place[patient.name]] * np.array(patient.known, np.uint8)
        mixed.append(
            replace(patient, ed=_mix(patient.ed, ed, share), es=_mix(patient.es, es, share))
        )
    return mixed


def _mix(still: Still, soft_HWN: NDArray[np.uint8], share: float) -> Still:
    side = still.image_HW.shape[0]
    soft = cv2.resize(soft_HWN, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    structures = (1 - share) * still.labels_HWN[..., 1:] + share * soft
    background = 255.0 - structures.sum(axis=-1, keepdims=True)
    labels = np.concatenate([background, structures], axis=-1).clip(0, 255)
    return replace(still, labels_HWN=np.rint(labels).astype(np.uint8))


def main() -> None:
    """Label the training patients of a data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    device = torch.device(given.device)
    dice = label(given.data, given.checkpoints, given.out, device, given.workers)
    sys.stdout.write(json.dumps(dice) + "\n")


if __name__ == "__main__":
    main()
