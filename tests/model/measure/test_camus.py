"""Expert masks of real patients: what measurement makes of them against published figures."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model.frame import Fit, Frame, Mask, Region
from model.measure import Reading, Ventricle, biplane_volume_ml, measure_frame
from model.measure.ejection import MODEL_SD_POINTS, WIDTH_PER_SD
from model.predictor import Predictor, load_predictor


@pytest.fixture(scope="module")
def camus_dir(shared_dir: Path) -> Path:
    folder = shared_dir / "data/ultrasound/camus"
    if not folder.is_dir():
        pytest.skip("CAMUS's masks are not beside the checkout")
    return folder


def mask_of(labels_HW: NDArray[np.uint8]) -> Mask:
    """Labels 1, 2, 3 as certain maps."""
    rows, cols = labels_HW.shape
    maps = np.stack([(labels_HW == label) for label in (1, 2, 3)]).astype(np.float32)
    fit = Fit(1.0, 1.0, 0.0, 0.0, Region(0, 0, rows, cols), (rows, cols), max(rows, cols))
    return Mask(maps, fit, 0.99)


def read_meta_image(path: Path) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Pixels and (row, column) spacing of a two-dimensional MetaImage of bytes."""
    lines = path.read_text(encoding="ascii").splitlines()
    header = dict(line.split(" = ", 1) for line in lines if " = " in line)
    cols, rows = (int(each) for each in header["DimSize"].split()[:2])
    across, down = (float(each) for each in header["ElementSpacing"].split()[:2])
    raw = np.fromfile(path.with_name(header["ElementDataFile"].strip()), np.uint8)
    return raw.reshape(rows, cols), (down, across)


def published(folder: Path, key: str) -> float:
    for path in sorted(folder.glob("Info_*.cfg")):
        for line in path.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return float(value)
    raise AssertionError(f"{folder} publishes no {key}")


def ventricle(folder: Path, view: str, phase: str) -> Ventricle:
    patient = folder.name
    labels, spacing = read_meta_image(folder / f"{patient}_{view}_{phase}_gt.mhd")
    lv = measure_frame(mask_of(labels), spacing).lv
    assert lv is not None
    return lv


@pytest.mark.parametrize("patient", ["patient0001", "patient0004"])
def test_biplane_ef_of_expert_masks_is_the_published_one(camus_dir: Path, patient: str) -> None:
    folder = camus_dir / "mhd" / patient
    edv, esv = (
        biplane_volume_ml(ventricle(folder, "4CH", phase), ventricle(folder, "2CH", phase))
        for phase in ("ED", "ES")
    )
    assert edv is not None
    assert esv is not None
    # The bar of ef-and-measurement.md section 5, item 8; volumes by the source's own rule of axes.
    assert 100 * (1 - esv / edv) == pytest.approx(published(folder, "LVef"), abs=0.3)
    assert edv == pytest.approx(published(folder, "LVedv"), rel=0.03)
    assert esv == pytest.approx(published(folder, "LVesv"), rel=0.03)


def readings(camus_dir: Path, split: str) -> dict[tuple[str, str], tuple[Reading, float]]:
    """Per patient and phase the reading of the expert's mask, and its area by the files' index."""
    folder = camus_dir / "a4c-256"
    found = {}
    with (folder / "index.csv").open(encoding="ascii", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                name = f"{row['patient']}_{row['view']}_{row['phase']}_gt.png"
                labels = cv2.imread(str(folder / split / name), cv2.IMREAD_GRAYSCALE)
                mm = float(row["mm_per_px"])
                reading = measure_frame(mask_of(np.asarray(labels, np.uint8)), (mm, mm))
                found[row["patient"], row["phase"]] = reading, float(row["lv_area_cm2"])
    return found


@pytest.fixture(scope="module")
def validation(camus_dir: Path) -> dict[tuple[str, str], tuple[Reading, float]]:
    return readings(camus_dir, "valid")


def test_most_intervals_of_the_shipped_weights_hold_the_experts_ef(
    camus_dir: Path, validation: dict[tuple[str, str], tuple[Reading, float]]
) -> None:
    # The interval's constant was fitted on these very patients: this notices weights that need it
    # fitted again, and is no independent test. 40 to 49 of 50 are what 90 % may give by chance.
    predictor = load_predictor()
    held = 0
    for patient in sorted({patient for patient, _ in validation}):
        found, wanted = [], []
        for phase in ("ED", "ES"):
            lv = segmented(predictor, camus_dir / "a4c-256/valid" / f"{patient}_4CH_{phase}.png")
            reference = validation[patient, phase][0].lv
            assert reference is not None
            found.append(lv)
            wanted.append(reference.volume_index)
        ed, es = found
        share = es.volume_index / ed.volume_index
        soft = (
            100
            * share
            * np.hypot(ed.volume_index_sd / ed.volume_index, es.volume_index_sd / es.volume_index)
        )
        half = WIDTH_PER_SD * np.hypot(MODEL_SD_POINTS, soft)
        held += bool(abs(100 * (1 - share) - 100 * (1 - wanted[1] / wanted[0])) <= half)
    assert 40 <= held <= 49


def segmented(predictor: Predictor, path: Path) -> Ventricle:
    """Ventricle of a still, shown three times as a stream that begins."""
    image = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)
    state = predictor.start(Region(0, 0, *image.shape), None)
    for seq in range(3):
        mask, state = predictor.step(Frame(seq, None, image), state)
    lv = measure_frame(mask, None).lv
    assert lv is not None, path.name
    return lv


def test_areas_agree_with_those_of_the_full_size_masks(
    validation: dict[tuple[str, str], tuple[Reading, float]],
) -> None:
    assert len(validation) == 100
    for (patient, phase), (reading, area_cm2) in validation.items():
        assert reading.lv is not None, (patient, phase)
        # SOURCES.md: areas of the scaled masks are within 3 %.
        assert reading.lv.area_cm2 == pytest.approx(area_cm2, rel=0.035), (patient, phase)


def test_expert_masks_pass_the_gates(
    validation: dict[tuple[str, str], tuple[Reading, float]],
) -> None:
    states = [reading.quality.state for reading, _ in validation.values()]
    assert states.count("fail") == 0
    assert states.count("pass") >= 95


def test_ventricles_shorten_as_those_of_the_literature(
    validation: dict[tuple[str, str], tuple[Reading, float]],
) -> None:
    patients = sorted({patient for patient, _ in validation})
    ratios, per_fac = [], []
    for patient in patients:
        ed, es = (validation[patient, phase][0].lv for phase in ("ED", "ES"))
        assert ed is not None
        assert es is not None
        ratios.append(es.length_index / ed.length_index)
        fac = 1 - es.area_px / ed.area_px
        if fac >= 0.1:
            per_fac.append((1 - es.volume_index / ed.volume_index) / fac)
    # ef-and-measurement.md section 1.7: 5 to 95 % of CAMUS lie in these spans; of 50 patients at
    # least 40 must.
    assert sum(0.772 <= each <= 0.932 for each in ratios) >= 40
    assert sum(1.33 <= each <= 1.57 for each in per_fac) >= 0.8 * len(per_fac)
