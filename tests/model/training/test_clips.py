from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import FrameError
from model.training.clips import (
    LEVELS,
    Patient,
    Still,
    contour_points,
    field_at,
    landmarks,
    read_patients,
    render,
    solve_motion,
)
from tests.model.training.hearts import draw_image, draw_labels, write_still

SIDE = 96


def a_still(labels_HW: NDArray[np.uint8], seed: int) -> Still:
    one_hot = (labels_HW[..., None] == np.arange(4)).astype(np.uint8) * 255
    return Still(draw_image(labels_HW, seed), one_hot)


@pytest.fixture(scope="module")
def patient() -> Patient:
    ed, es = a_still(draw_labels(1.0), 1), a_still(draw_labels(0.6), 2)
    return Patient("one", ed, es, solve_motion(ed, es))


def straight_grid() -> NDArray[np.float32]:
    axis = np.arange(SIDE, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), axis=-1)


def test_every_patient_is_read_onto_the_working_grid(data: Path) -> None:
    patients = read_patients(data / "train", 64)
    assert [patient.name for patient in patients] == ["patient0001", "patient0002"]
    for patient in patients:
        for still in (patient.ed, patient.es):
            assert still.image_HW.shape == (64, 64)
            assert still.labels_HWN.shape == (64, 64, 4)
            total = still.labels_HWN.astype(int).sum(axis=-1)
            assert np.abs(total - 255).max() <= 2  # each of four is rounded
        assert patient.ed.labels_HWN[..., 1].sum() > patient.es.labels_HWN[..., 1].sum()


def test_images_and_labels_are_placed_alike(data: Path) -> None:
    # the wall is by far the brightest, the blood the darkest of what is drawn
    (patient, *_) = read_patients(data / "train", 96)
    labels = patient.ed.labels_HWN.argmax(axis=-1)
    mean = {label: patient.ed.image_HW[labels == label].mean() for label in (1, 2)}
    assert mean[2] == pytest.approx(140, rel=0.1)
    assert mean[1] == pytest.approx(25, rel=0.25)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("remove_mask", "patient0002_4CH_ES"),
        ("remove_image", "patient0002_4CH_ES"),
        ("cut_short", "patient0002_4CH_ES"),
        ("not_an_image", "patient0002_4CH_ES"),
        ("other_size", "patient0002_4CH_ES"),
        ("grey_labels", "patient0002_4CH_ES"),
        ("stray_file", "notes_4CH_ED"),
        ("no_files", "all"),
        ("no_folder", "all"),
    ],
)
def test_a_damaged_folder_is_refused_and_the_files_are_named(
    data: Path, tmp_path: Path, damage: str, named: str
) -> None:
    folder = data / "train"
    stem = folder / "patient0002_4CH_ES"
    mask = stem.with_name(stem.name + "_gt.png")
    image = stem.with_suffix(".png")
    if damage == "remove_mask":
        mask.unlink()
    elif damage == "remove_image":
        image.unlink()
    elif damage == "cut_short":
        image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    elif damage == "not_an_image":
        mask.write_text("a mask")
    elif damage == "other_size":
        cv2.imwrite(str(mask), draw_labels(0.7)[:-1])
    elif damage == "grey_labels":
        cv2.imwrite(str(mask), draw_labels(0.7) * 80)
    elif damage == "stray_file":
        cv2.imwrite(str(folder / "notes.png"), draw_labels(0.7))
    else:
        folder = tmp_path / "empty"
        if damage == "no_files":
            folder.mkdir()
    with pytest.raises(FrameError) as refusal:
        read_patients(folder, 64)
    assert named in refusal.value.message
    assert str(folder) in refusal.value.message
    assert "patient0001" not in refusal.value.message


def test_stills_of_two_sizes_are_each_placed_whole(tmp_path: Path) -> None:
    large = cv2.resize(draw_labels(0.75), (192, 192), interpolation=cv2.INTER_NEAREST)
    write_still(tmp_path, "p_4CH_ED", draw_labels(1.0), 1)
    cv2.imwrite(str(tmp_path / "p_4CH_ES_gt.png"), large)
    grey = cv2.resize(draw_image(draw_labels(0.75), 2), (192, 192))
    cv2.imwrite(str(tmp_path / "p_4CH_ES.png"), grey)
    (patient,) = read_patients(tmp_path, 96)
    atria = [still.labels_HWN[..., 3].astype(float).sum() for still in (patient.ed, patient.es)]
    assert atria[0] == pytest.approx(atria[1], rel=0.1)  # one atrium of one size


@pytest.mark.parametrize("radius", [10.0, 25.0])
def test_the_contour_of_a_disc_is_its_radius_away_at_every_angle(radius: float) -> None:
    rows, cols = np.mgrid[:SIDE, :SIDE]
    area = np.hypot(rows - 40, cols - 50) <= radius
    angles = np.linspace(-np.pi, np.pi, 12, endpoint=False)
    points = contour_points(area, angles)
    away = points - np.array([50.0, 40.0])
    np.testing.assert_allclose(np.hypot(*away.T), radius, atol=1.0)
    turned = np.angle(np.exp(1j * (np.arctan2(away[:, 1], away[:, 0]) - angles)))
    np.testing.assert_allclose(turned, 0.0, atol=1e-9)


def test_an_empty_area_has_its_contour_in_the_middle() -> None:
    points = contour_points(np.zeros((SIDE, SIDE), bool), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(points, np.full((2, 2), 48.0))


def test_a_heart_without_atrium_has_fewer_landmarks_and_still_moves() -> None:
    without = draw_labels(0.8)
    without[without == 3] = 0
    ed, es = a_still(draw_labels(1.0), 1), a_still(without, 2)
    assert len(landmarks(ed)) == len(landmarks(es)) + 12
    assert np.isfinite(solve_motion(ed, es)).all()


def test_a_still_needs_no_motion_to_its_own_phase(patient: Patient) -> None:
    for still, phi in ((0, 0.0), (1, 1.0)):
        here = field_at(patient, phi)
        # thin plates smooth a little; between two levels the field is interpolated
        assert np.abs(here[still]).max() < 0.3
        assert np.abs(here[1 - still]).max() > 2.0


def test_the_field_at_a_level_is_that_level_and_half_way_the_mean(patient: Patient) -> None:
    fields = patient.fields_LSYX2
    np.testing.assert_allclose(field_at(patient, float(LEVELS[3])), fields[3], atol=1e-4)
    middle = float((LEVELS[3] + LEVELS[4]) / 2)
    np.testing.assert_allclose(field_at(patient, middle), (fields[3] + fields[4]) / 2, atol=1e-4)
    np.testing.assert_allclose(field_at(patient, 9.0), fields[-1], atol=1e-4)


@pytest.mark.parametrize("phi", [0.0, 1.0])
def test_at_the_phases_the_stills_themselves_are_shown_at_half_size(
    patient: Patient, phi: float
) -> None:
    still = patient.es if phi else patient.ed
    image, labels = render(patient, phi, straight_grid())
    blocks = still.image_HW.reshape(48, 2, 48, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(image, blocks, atol=0.501)  # rounded to whole grey levels
    shares = still.labels_HWN.reshape(48, 2, 48, 2, 4).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(labels, shares, atol=0.501 / 255)


@pytest.mark.parametrize("phi", [-0.1, 0.25, 0.5, 0.75, 1.1])
def test_the_ventricle_shrinks_with_the_contraction_as_its_axes_do(
    patient: Patient, phi: float
) -> None:
    image, labels = render(patient, phi, straight_grid())
    size = 1.0 + phi * (0.6 - 1.0)
    wanted = np.pi * 26 * size * 13 * size / 4  # in pixels of twice the size
    assert labels[..., 1].sum() == pytest.approx(wanted, rel=0.08)
    np.testing.assert_allclose(labels.sum(axis=-1), 1.0, atol=0.02)
    assert image.min() >= 0
    assert image.max() <= 255


def test_speckle_keeps_its_contrast_and_goes_over_from_one_still_to_the_other() -> None:
    rng = np.random.default_rng(5)
    labels = a_still(draw_labels(1.0), 1).labels_HWN
    ed, es = (Still(rng.integers(60, 196, (SIDE, SIDE), dtype=np.uint8), labels) for _ in range(2))
    resting = Patient("resting", ed, es, np.zeros((9, 2, 25, 25, 2), np.float32))
    pure = {phi: render(resting, phi, straight_grid())[0] for phi in (0.0, 1.0)}
    detail = {phi: image - cv2.GaussianBlur(image, (0, 0), 3.0) for phi, image in pure.items()}
    for phi in (0.25, 0.5, 0.75):
        image, _ = render(resting, phi, straight_grid())
        speckle = image - cv2.GaussianBlur(image, (0, 0), 3.0)
        # cos^2 + sin^2 = 1: independent speckle adds up to the contrast of either still
        assert speckle.std() == pytest.approx(detail[0.0].std(), rel=0.05)
        for end, share in ((0.0, np.cos(phi * np.pi / 2)), (1.0, np.sin(phi * np.pi / 2))):
            found = np.corrcoef(speckle.ravel(), detail[end].ravel())[0, 1]
            assert found == pytest.approx(share, abs=0.08)


def test_what_lies_outside_the_working_grid_is_black_background(patient: Patient) -> None:
    image, labels = render(patient, 0.0, straight_grid() + 500.0)
    assert not image.any()
    np.testing.assert_array_equal(labels, np.broadcast_to([1.0, 0, 0, 0], (48, 48, 4)))
