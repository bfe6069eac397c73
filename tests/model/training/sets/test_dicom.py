import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless

from model.errors import FrameError
from model.frame import Region
from model.preprocess import find_sector, make_fit, to_network_input
from model.training.patients import read_studies
from model.training.sets import open_set
from server.artefacts import Material, write_segmentation
from server.export.segmentation import SegmentationType
from server.ingest import open_clip
from tests.model.test_sector import drawn_fan, speckle, written_on
from tests.model.training.sets.writing import SIZES, heart
from tests.server.export.conftest import analyse, name_patient
from tests.server.ingest.making import coloured_cine, save, to_ybr, ultrasound
from tests.server.phantom import BEAT_FRAMES, phantom_clip

COUNT = len(SIZES)
SIDE = 128


def hearts() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """images_THW and labels_THW from diastole to systole, zoomed in: no fan ends in the picture."""
    frames = [heart(size, k) for k, size in enumerate(SIZES)]
    images_THW = np.stack([f[0] for f in frames])
    rows, columns = images_THW.shape[1:]
    tissue_HW = 40 + (5 * np.arange(rows)[:, None] + 3 * np.arange(columns)) % 8
    return np.maximum(images_THW, tissue_HW.astype(np.uint8)), np.stack([f[1] for f in frames])


def region(left: int, top: int, right: int, bottom: int, **more: Any) -> Dataset:
    made = Dataset()
    made.RegionSpatialFormat, made.RegionDataType = 1, 1
    made.RegionLocationMinX0, made.RegionLocationMinY0 = left, top
    made.RegionLocationMaxX1, made.RegionLocationMaxY1 = right, bottom
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = 3
    made.PhysicalDeltaX, made.PhysicalDeltaY = 0.05, -0.04
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def write_clip(folder: Path, patient: str, **masks: Any) -> None:
    """A clip and the masks beside it."""
    folder.mkdir(parents=True)
    images, labels = hearts()
    save(ultrasound(images, PatientID=patient), folder / "clip.dcm")
    np.savez(folder / "masks.npz", **({"labels_THW": labels} | masks))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_clip(tmp_path / "train" / "one", "1")
    write_clip(tmp_path / "valid" / "two", "2")
    return tmp_path


def test_clips_with_masks_are_known_and_split_by_their_folders(root: Path) -> None:
    found = open_set(root)
    found.check()
    assert [(s.name, s.split, s.labelled_frames) for s in found.studies] == [
        ("one", "train", COUNT),
        ("two", "valid", COUNT),
    ]
    assert found.known == (True, True, True)


def test_a_clip_is_read_with_its_masks(root: Path) -> None:
    images, labels = hearts()
    recording = open_set(root).studies[0].read(True)
    np.testing.assert_array_equal(np.stack(recording.images), images)
    np.testing.assert_array_equal(np.stack(recording.labels), labels)
    assert recording.spacing_mm is None
    assert len(open_set(root).studies[0].read(False).images) == 2


def test_only_frames_that_somebody_drew_are_labelled(root: Path) -> None:
    drawn = np.array([True, False, False, True])
    write_clip(root / "train" / "three", "3", labelled_T=drawn)
    (study,) = (each for each in open_set(root).studies if each.name == "three")
    recording = study.read(True)
    assert recording.labelled == (0, 3)
    assert (study.labelled_frames, len(recording.images)) == (2, COUNT)


def test_a_cavity_drawn_alone_says_so(tmp_path: Path) -> None:
    labels = (hearts()[1] == 1).astype(np.uint8)
    write_clip(tmp_path / "train" / "one", "1", labels_THW=labels, structures=np.array(["lv"]))
    assert open_set(tmp_path).known == (True, False, False)
    write_clip(tmp_path / "train" / "two", "2")
    with pytest.raises(FrameError, match="other structures"):
        open_set(tmp_path).check()


def test_the_tissue_region_is_cut_out_and_gives_the_pixels_size(root: Path) -> None:
    images, labels = hearts()
    regions = [
        region(0, 0, 10, 10, RegionDataType=10),
        region(0, 0, 20, 20),
        region(4, 2, 91, 99),
    ]
    clip = root / "train" / "one" / "clip.dcm"
    save(ultrasound(images, SequenceOfUltrasoundRegions=regions), clip)
    recording = open_set(root).studies[0].read(True)
    np.testing.assert_array_equal(np.stack(recording.images), images[:, 2:100, 4:92])
    np.testing.assert_array_equal(np.stack(recording.labels), labels[:, 2:100, 4:92])
    assert recording.spacing_mm == pytest.approx((0.4, 0.5))


@pytest.mark.parametrize("declared", [False, True])
def test_training_sees_of_a_clip_what_the_network_sees_of_it_served(
    root: Path, declared: bool
) -> None:
    folder = root / "train" / "one"
    images = np.stack([written_on(speckle(drawn_fan(35, 35), seed)) for seed in range(2)])
    labels = np.zeros_like(images)
    for labels_HW, reach in zip(labels, (60, 40), strict=True):
        labels_HW[150 - reach : 150, 190 - reach // 3 : 190 + reach // 3] = 1
        labels_HW[152:190, 180:200] = 3
    regions = [region(0, 10, images.shape[2] - 1, images.shape[1] - 1)] if declared else []
    clip = save(ultrasound(images, SequenceOfUltrasoundRegions=regions), folder / "clip.dcm")
    np.savez(folder / "masks.npz", labels_THW=labels)
    with open_clip(clip) as served:
        frames = [served.seen(frame) for frame in served.frames]
        assert (served.region is not None, served.sector is not None) == (declared, True)
        assert served.sight is not None
        fit = make_fit(served.sight, served.size, SIDE, served.spacing_mm)
    (patient,) = read_studies(open_set(root).of_split("train"), SIDE)
    for still, frame in zip((patient.ed, patient.es), frames, strict=True):
        seen = 255 * to_network_input(frame.pixels_HW, fit)[0, 0]
        np.testing.assert_array_equal(still.image_HW, np.rint(seen))


@pytest.mark.parametrize("is_drawn_on_the_file", [False, True])
def test_pixels_of_no_known_size_are_made_square_for_training_as_they_are_served(
    root: Path, is_drawn_on_the_file: bool
) -> None:
    images, labels = hearts()
    squeezed = images[:, :, ::2]
    clip = root / "train" / "one" / "clip.dcm"
    save(ultrasound(squeezed, PixelAspectRatio=[1, 2]), clip)
    drawn = labels[:, :, ::2] if is_drawn_on_the_file else labels
    np.savez(clip.with_name("masks.npz"), labels_THW=drawn)
    with open_clip(clip) as served:
        assert (served.size, served.sector) == (images.shape[1:], None)
        frames = [frame.pixels_HW for frame in served.frames]
    recording = open_set(root).studies[0].read(True)
    box = find_sector(frames[0])
    assert box is not None
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    np.testing.assert_array_equal(recording.images, np.stack(frames)[:, rows, columns])
    expected = np.repeat(drawn, 2, axis=2) if is_drawn_on_the_file else labels
    np.testing.assert_array_equal(recording.labels, expected[:, rows, columns])


def without(keyword: str) -> Dataset:
    made = region(4, 2, 91, 99)
    delattr(made, keyword)
    return made


@pytest.mark.parametrize(
    "declared",
    [
        [region(4, 2, 96, 112)],  # half open
        [region(4, 2, 91, 99), region(0, 0, 500, 500)],
        [region(4, 2, 91, 99, PhysicalDeltaX=3.0)],
        [region(4, 2, 91, 99, RegionDataType=2)],
        [without("PhysicalDeltaX")],
        [without("RegionLocationMinY0"), region(4, 2, 91, 99)],
        [without("RegionSpatialFormat"), region(0, 0, 80, 99)],
    ],
)
def test_a_region_is_taken_for_training_as_it_is_served(
    root: Path, declared: list[Dataset]
) -> None:
    clip = root / "train" / "one" / "clip.dcm"
    images = hearts()[0]
    save(ultrasound(images, SequenceOfUltrasoundRegions=declared), clip)
    with open_clip(clip) as served:
        assert served.sector is None
        box = served.sight or Region(0, 0, *served.size)
    recording = open_set(root).studies[0].read(False)
    seen = images[0, box.top : box.top + box.height, box.left : box.left + box.width]
    np.testing.assert_array_equal(recording.images[0], seen)
    assert recording.spacing_mm == served.spacing_mm


def test_the_view_is_read_from_its_code(root: Path) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "399232001", "SCT"
    clip = root / "train" / "one" / "clip.dcm"
    save(ultrasound(hearts()[0], ViewCodeSequence=[code]), clip)
    assert [study.view for study in open_set(root).studies] == ["2CH", "4CH"]


@pytest.mark.parametrize("how", ["rgb", "ybr", "16 bits", "rle", "inverted"])
def test_clips_of_other_encodings_become_the_same_grey(root: Path, how: str) -> None:
    images, clip = hearts()[0], root / "train" / "one" / "clip.dcm"
    rgb = np.repeat(images[..., None], 3, axis=3)
    made: dict[str, Callable[[], Path]] = {
        "rgb": lambda: save(ultrasound(rgb, "RGB"), clip),
        "ybr": lambda: save(ultrasound(to_ybr(rgb), "YBR_FULL"), clip),
        "16 bits": lambda: save(ultrasound(images.astype(np.uint16) << 8), clip),
        "rle": lambda: _compressed(ultrasound(images), clip),
        "inverted": lambda: save(ultrasound(255 - images, "MONOCHROME1"), clip),
    }
    made[how]()
    recording = open_set(root).studies[0].read(True)
    assert np.abs(np.stack(recording.images).astype(int) - images).max() <= 1


def _compressed(made: Dataset, path: Path) -> Path:
    plain = save(made, path)
    stored = dcmread(plain)
    stored.compress(RLELossless)
    stored.save_as(plain)
    return plain


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A clip of a bit more than one beat, as the server analyses it."""
    path = phantom_clip(tmp_path_factory.mktemp("clip") / "clip.dcm", BEAT_FRAMES + 4)
    return analyse(name_patient(path), view="A4C")


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_a_segmentation_that_the_server_makes_is_read_as_masks(
    analysed: Material, tmp_path: Path, kind: SegmentationType
) -> None:
    folder = tmp_path / "train" / "one"
    folder.mkdir(parents=True)
    shutil.copy(analysed.upload, folder / "clip.dcm")
    write_segmentation(folder / "seg.dcm", analysed, kind)
    maps = [np.frombuffer(zlib.decompress(each), np.uint8) for each in analysed.labels]
    labels_THW = np.stack(maps).reshape(-1, *analysed.study.size)
    areas_T = (labels_THW == 1).sum(axis=(1, 2))
    found = open_set(tmp_path)
    found.check()
    assert found.known == (True, True, True)
    assert found.studies[0].labelled_frames == np.count_nonzero(areas_T)
    recording = found.studies[0].read(False)
    for labels, frame in zip(recording.labels, (areas_T.argmax(), areas_T.argmin()), strict=True):
        assert [(labels == n).sum() for n in (1, 2, 3)] == [
            (labels_THW[frame] == n).sum() for n in (1, 2, 3)
        ]


def test_the_other_files_that_the_server_makes_of_a_clip_do_not_disturb(root: Path) -> None:
    folder = root / "train" / "one"
    capture = ultrasound(coloured_cine(4), "RGB", ImageType=["DERIVED", "SECONDARY"])
    save(capture, folder / "secondary-capture.dcm")
    for name in ("frames.csv", "still.png", "report.html"):
        (folder / name).write_text("no clip")
    found = open_set(root)
    found.check()
    assert found.studies[0].files == (folder / "clip.dcm", folder / "masks.npz")


def test_one_patient_in_two_splits_is_refused(root: Path) -> None:
    write_clip(root / "valid" / "three", "1")
    with pytest.raises(FrameError, match=r"train \(one\) and valid \(three\)"):
        open_set(root).check()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "masks.npz").write_bytes(b"PK"), "one/masks.npz is cut off"),
        (lambda f: (f / "masks.npz").unlink(), "one holds neither masks.npz nor"),
        (lambda f: (f / "clip.dcm").unlink(), "one holds 0 readable DICOM clips"),
        (lambda f: (f / "clip.dcm").write_bytes(b"x" * 300), "one holds 0 readable"),
        (lambda f: save(ultrasound(hearts()[0]), f / "again.dcm"), "one holds 2 readable"),
        (
            lambda f: (f / "clip.dcm").write_bytes((f / "clip.dcm").read_bytes()[:-999]),
            "one/clip.dcm cannot be decoded",
        ),
        (
            lambda f: np.savez(f / "masks.npz", labels_THW=0 * hearts()[1]),
            "masks.npz shows a ventricle in no frame",
        ),
        (
            lambda f: np.savez(f / "masks.npz", labels_THW=hearts()[1][:1]),
            "one size only",
        ),
        (
            lambda f: np.savez(f / "masks.npz", labels_THW=np.repeat(hearts()[1], 2, axis=0)),
            "has masks of 8 frames, clip.dcm 4",
        ),
        (
            lambda f: np.savez(f / "masks.npz", labels_THW=hearts()[1][:, :-1]),
            "frame 0 is (111, 96) px, its image (112, 96)",
        ),
        (lambda f: save(ultrasound(coloured_cine(4), "RGB"), f / "clip.dcm"), "its image (48, 64)"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(root: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    damage(root / "train" / "one")
    with pytest.raises(FrameError) as refusal:
        _read_all(root)
    assert said in refusal.value.message


def _read_all(root: Path) -> None:
    found = open_set(root)
    found.check()
    for study in found.studies:
        study.read(True)
