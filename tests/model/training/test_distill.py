from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import ModelConfig
from model.errors import WeightsError
from model.network import LiveNetwork, NetworkState
from model.training.clips import Patient, read_patients
from model.training.config import TrainConfig
from model.training.distill import label, load, predict, soften
from model.training.loop import train

SIDE = 48


@pytest.fixture
def patients(data: Path) -> list[Patient]:
    return read_patients(data / "train", 2 * SIDE)


def write(path: Path, patients: list[Patient], value: tuple[int, int, int]) -> Path:
    labels = np.zeros((len(patients), 2, SIDE, SIDE, 3), np.uint8)
    labels[:] = value
    np.savez(path, names=[patient.name for patient in patients], labels_PSHWN=labels)
    return path


def test_labels_are_mixed_by_their_share(patients: list[Patient], tmp_path: Path) -> None:
    file = write(tmp_path / "soft.npz", patients, (200, 40, 0))
    drawn = patients[0].es.labels_HWN.astype(float)
    mixed = soften(patients, file, 0.25)[0]
    expected = 0.75 * drawn[..., 1:] + 0.25 * np.array([200, 40, 0])
    np.testing.assert_allclose(mixed.es.labels_HWN[..., 1:], expected, atol=0.5)
    np.testing.assert_allclose(mixed.es.labels_HWN.sum(axis=-1, dtype=int), 255, atol=2)
    np.testing.assert_array_equal(mixed.es.image_HW, patients[0].es.image_HW)
    np.testing.assert_array_equal(mixed.fields_LSYX2, patients[0].fields_LSYX2)


def test_what_the_annotator_never_drew_stays_undrawn(
    patients: list[Patient], tmp_path: Path
) -> None:
    file = write(tmp_path / "soft.npz", patients, (200, 40, 30))
    cavity_alone = [
        replace(each, known=(True, False, False), ed=replace(each.ed, labels_HWN=nothing))
        for each in patients
        for nothing in [each.ed.labels_HWN * np.array([1, 1, 0, 0], np.uint8)]
    ]
    mixed = soften(cavity_alone, file, 0.5)[0].ed.labels_HWN
    assert mixed[..., 1].min() == 100
    assert mixed[..., 2:].max() == 0


def test_a_share_of_nothing_changes_nothing(patients: list[Patient], tmp_path: Path) -> None:
    file = write(tmp_path / "soft.npz", patients, (255, 0, 0))
    same = soften(patients, file, 0.0)[1]
    np.testing.assert_allclose(same.ed.labels_HWN, patients[1].ed.labels_HWN, atol=2)


def test_a_patient_without_soft_labels_is_named(patients: list[Patient], tmp_path: Path) -> None:
    file = write(tmp_path / "soft.npz", patients[:1], (255, 0, 0))
    with pytest.raises(WeightsError, match=patients[1].name):
        soften(patients, file, 0.5)
    with pytest.raises(WeightsError, match="no soft labels"):
        soften(patients, tmp_path / "none.npz", 0.5)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(WeightsError, match="no soft labels"):
        soften(patients, tmp_path / "text.npz", 0.5)


class Bright(LiveNetwork):
    """Says of every pixel on its own that it is cavity, the surer the brighter it is."""

    def clip(self, images_BTHW: Tensor, state: NetworkState) -> tuple[Tensor, Tensor, NetworkState]:
        batch, frames = images_BTHW.shape[:2]
        cavity = 8 * images_BTHW - 4
        empty = torch.zeros_like(images_BTHW)
        logits_BTNHW = torch.stack([empty, cavity, empty - 50, empty - 50], dim=2)
        return logits_BTNHW, torch.zeros(batch, frames), state


def test_views_are_turned_back_before_they_are_averaged(tiny_config: ModelConfig) -> None:
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    # off the middle, so that a view turned the wrong way back would smear it
    blob = np.exp(-((rows - 30) ** 2 + (cols - 14) ** 2) / (2 * 6.0**2)).astype(np.float32)
    images = torch.from_numpy(blob)[None]
    network = Bright(replace(tiny_config, network_size=SIDE))
    said = predict(network, images)[0, 1]
    expected = torch.sigmoid(8 * images[0] - 4)
    inner = (slice(6, -6), slice(6, -6))
    assert (said - expected)[inner].abs().max() < 0.04


def test_every_patient_is_labelled_by_the_network_that_did_not_see_it(
    data: Path, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    side = tiny_config.network_size
    checkpoints = [
        train(
            TrainConfig(str(data), steps=1, batch=1, folds=2, fold=fold, seed=fold),
            tiny_config,
            tmp_path / str(fold),
        )
        for fold in (0, 1)
    ]
    dice = label(data, checkpoints, tmp_path / "soft.npz", torch.device("cpu"))
    assert set(dice) == {
        f"{name}_{phase}" for name in ("lv", "myocardium", "atrium") for phase in ("ed", "es")
    }
    with np.load(tmp_path / "soft.npz") as saved:
        labels_PSHWN = saved["labels_PSHWN"]
    for k, patient in enumerate(read_patients(data / "train", 2 * side)):
        image = cv2.resize(patient.es.image_HW, (side, side), interpolation=cv2.INTER_AREA)
        said = predict(
            load(checkpoints[k], torch.device("cpu")), torch.from_numpy(image)[None] / 255.0
        )
        expected_HWN = 255 * said[0, 1:].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(labels_PSHWN[k, 1], expected_HWN, atol=0.51)


def test_checkpoints_of_several_sizes_are_refused(
    data: Path, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    shapes = (tiny_config, replace(tiny_config, network_size=tiny_config.network_size + 16))
    checkpoints = [
        train(TrainConfig(str(data), steps=1, batch=1), shape, tmp_path / str(k))
        for k, shape in enumerate(shapes)
    ]
    with pytest.raises(WeightsError, match="sizes"):
        label(data, checkpoints, tmp_path / "soft.npz", torch.device("cpu"))
