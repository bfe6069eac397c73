from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.errors import FrameError
from model.training.clips import nearest, render
from model.training.config import TrainConfig
from model.training.loop import read_sides
from model.training.parallel import Crew
from model.training.patients import folds_of, read_studies
from model.training.sets import open_set
from model.training.synthesis import make_batch
from model.training.watch import SILENT
from tests.model.training.hearts import write_patient
from tests.model.training.sets.test_dicom import write_clip
from tests.model.training.sets.writing import (
    SIZES,
    write_echonet_set,
    write_mhd_release,
    write_nifti_release,
)

SIDE = 64


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    # The drawn ventricle is twice as high as wide in pixels that are twice as wide as high.
    found = open_set(write_mhd_release(tmp_path))
    (patient, _) = read_studies(found.of_split("valid"), SIDE)
    rows, columns = np.nonzero(patient.ed.labels_HWN[..., 1] > 127)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=2)


def test_every_broken_file_of_a_set_is_named(data: Path) -> None:
    for name in ("patient0001_4CH_ED.png", "patient0002_4CH_ES_gt.png"):
        (data / "train" / name).write_bytes(b"no picture")
    seen = list[int]()
    with pytest.raises(FrameError) as refusal:
        read_studies(open_set(data).of_split("train"), SIDE, progress=seen.append)
    assert "(2 found)" in refusal.value.message
    assert "patient0001_4CH_ED.png" in refusal.value.message
    assert "patient0002_4CH_ES_gt.png" in refusal.value.message
    assert seen == [1, 2]


def test_real_frames_between_the_phases_are_kept_and_shown(tmp_path: Path) -> None:
    found = open_set(write_nifti_release(tmp_path))
    (patient, _) = read_studies(found.of_split("train"), SIDE, frames_between=10)
    assert len(patient.between) == len(SIZES) - 2
    (fewer, _) = read_studies(found.of_split("train"), SIDE, frames_between=1)
    assert len(fewer.between) == 1
    # areas fall with the square of the size: 1, 0.81, 0.64, 0.49 of the largest
    assert nearest(patient, -0.1) is patient.ed
    assert nearest(patient, (1 - 0.81) / (1 - 0.49)) is patient.between[0]
    assert nearest(patient, (1 - 0.64) / (1 - 0.49)) is patient.between[1]
    assert nearest(patient, 0.95) is patient.es
    axis = np.arange(SIDE, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    _, labels = render(patient, 0.37, grid)
    expected = patient.between[0].labels_HWN.reshape(SIDE // 2, 2, SIDE // 2, 2, 4)
    np.testing.assert_allclose(labels, expected.mean(axis=(1, 3)) / 255, atol=0.01)


def test_a_cavity_traced_alone_says_nothing_of_wall_and_atrium(tmp_path: Path) -> None:
    found = open_set(write_echonet_set(tmp_path))
    patients = read_studies(found.of_split("train"), SIDE, found.known)
    assert patients[0].known == (True, False, False)
    config = TrainConfig("", clip_frames=2, batch=6, negative_share=0.5)
    batch = make_batch(patients, [], config, 0)
    assert batch.known_BN is not None
    shows_heart = batch.labels_BTNHW[:, 0, 1].any(axis=(1, 2))
    np.testing.assert_array_equal(batch.known_BN[:, 1:].any(axis=1), ~shows_heart)
    assert not batch.labels_BTNHW[:, :, 2:].any()


def test_all_views_and_clips_of_a_patient_are_in_one_fold(tmp_path: Path) -> None:
    found = open_set(write_mhd_release(tmp_path / "camus", patients=5))
    folds = folds_of(found.of_split("train"), 3)
    assert folds == {"patient0002": 0, "patient0003": 1, "patient0004": 2, "patient0005": 0}
    for name, patient in (("first", "7"), ("other", "8"), ("second", "7")):
        write_clip(tmp_path / "own" / "train" / name, patient)
    studies = open_set(tmp_path / "own").of_split("train")
    folds = folds_of(studies, 2)
    assert [folds[study.patient] for study in studies] == [0, 1, 0]


def test_a_run_on_one_view_leaves_out_the_patients_of_its_fold(data: Path, tmp_path: Path) -> None:
    for end in ("ED", "ED_gt", "ES", "ES_gt"):
        still = data / "train" / f"patient0001_4CH_{end}.png"
        still.rename(still.with_name(f"patient0001_2CH_{end}.png"))
    write_patient(data / "train", "patient0004", 4)
    assert folds_of(open_set(data).of_split("train"), 2)["patient0002"] == 1
    config = TrainConfig(str(data), views=("4CH",), folds=2, fold=1)
    train, _ = read_sides(config, tmp_path, SIDE, Crew(), SILENT)
    assert [patient.name for patient in train] == ["patient0004"]


def test_processes_read_the_same_patients(data: Path) -> None:
    write_patient(data / "train", "patient0004", 4)
    studies = open_set(data).of_split("train")
    alone, together = (read_studies(studies, SIDE, workers=n) for n in (1, 2))
    assert [p.name for p in alone] == [p.name for p in together]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.fields_LSYX2, other.fields_LSYX2)
        np.testing.assert_array_equal(one.ed.image_HW, other.ed.image_HW)
    assert replace(alone[0], known=(True, False, False)).known != alone[0].known
