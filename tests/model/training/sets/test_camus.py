import gzip
from pathlib import Path

import numpy as np
import pytest

from model.errors import FrameError
from model.frame import Mask, Region
from model.measure import Ventricle, biplane_volume_ml, measure_frame
from model.preprocess import make_fit, to_network_input
from model.training.sets import DataSet, Recording, open_set
from tests.model.training.sets.writing import (
    SIZES,
    heart,
    save_metaimage,
    save_nifti,
    write_mhd_release,
    write_nifti_patient,
    write_nifti_release,
    write_settings,
)


def read_all(root: Path) -> None:
    found = open_set(root)
    found.check()
    for study in found.studies:
        study.read(True)


def refusal_of(root: Path) -> str:
    """Why a set is refused, by its listing or by what a study holds."""
    with pytest.raises(FrameError) as refusal:
        read_all(root)
    return refusal.value.message


def only(found: DataSet, split: str, view: str = "4CH") -> Recording:
    (study,) = found.of_split(split, [view])
    return study.read(True)


@pytest.mark.parametrize("inside", ["", "database_nifti"])
def test_the_nifti_release_is_known_by_its_files_and_split_by_its_lists(
    tmp_path: Path, inside: str
) -> None:
    found = open_set(write_nifti_release(tmp_path) / inside)
    found.check()
    summary = found.summary()
    assert summary["layout"] == "CAMUS, NIfTI release"
    assert {study.patient: study.split for study in found.studies} == {
        "patient0002": "train",
        "patient0011": "valid",
        "patient0001": "test",
    }
    for split in ("train", "valid", "test"):
        assert summary["splits"][split] == {
            "patients": 1,
            "views": {"4CH": 1, "2CH": 1},
            "labelled_frames": 2 * len(SIZES),
        }


def test_a_nifti_sequence_is_read_upright_with_its_spacing(tmp_path: Path) -> None:
    recording = only(open_set(write_nifti_release(tmp_path)), "train")
    assert recording.spacing_mm == pytest.approx((0.154, 0.308))
    assert recording.labelled == (0, 1, 2, 3)
    for k, size in enumerate(SIZES):
        image, labels = heart(size, k)
        np.testing.assert_array_equal(recording.images[k], image)
        np.testing.assert_array_equal(recording.labels[k], labels)


def test_a_sequence_recorded_backwards_runs_from_diastole_to_systole(tmp_path: Path) -> None:
    write_nifti_release(tmp_path)
    database = tmp_path / "database_nifti"
    forwards = only(open_set(tmp_path), "train")
    write_nifti_patient(database, "patient0002", backwards=True)
    backwards = only(open_set(tmp_path), "train")
    for one, other in zip(forwards.labels, backwards.labels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_stills_alone_are_read_where_no_more_is_asked_for(tmp_path: Path) -> None:
    (study, _) = open_set(write_nifti_release(tmp_path)).of_split("train")
    recording = study.read(False)
    assert len(recording.images) == len(recording.labels) == 2
    np.testing.assert_array_equal(recording.labels[1], heart(SIZES[-1], 3)[1])


def patient_file(root: Path, end: str) -> Path:
    return root / "database_nifti" / "patient0002" / f"patient0002_{end}"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def half_written(path: Path) -> None:
    """A whole gzip file of half an image, as an interrupted program leaves it."""
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[: len(whole) // 2]))


@pytest.mark.parametrize("damage", [cut, half_written, Path.unlink, lambda p: p.write_bytes(b"")])
@pytest.mark.parametrize(
    "end", ["4CH_ED.nii.gz", "2CH_ES_gt.nii.gz", "4CH_half_sequence_gt.nii.gz"]
)
def test_a_nifti_file_that_is_not_whole_is_named(  # type: ignore[no-untyped-def]
    tmp_path: Path, damage, end: str
) -> None:
    write_nifti_release(tmp_path)
    damage(patient_file(tmp_path, end))
    assert f"patient0002_{end}" in refusal_of(tmp_path)


def test_every_broken_file_is_named_and_so_is_a_patient_without_a_folder(tmp_path: Path) -> None:
    write_nifti_release(tmp_path)
    lost = [patient_file(tmp_path, end) for end in ("2CH_ED.nii.gz", "4CH_ES_gt.nii.gz")]
    lost.append(tmp_path / "database_nifti" / "patient0011" / "Info_4CH.cfg")
    for path in lost:
        path.unlink()
    (tmp_path / "database_split" / "subgroup_testing.txt").write_text("patient0001\npatient0500")
    message = refusal_of(tmp_path)
    assert [str(path) in message for path in lost] == [True] * 3
    assert "patient0500" in message


def test_a_patient_in_two_lists_is_named(tmp_path: Path) -> None:
    write_nifti_release(tmp_path)
    training = (tmp_path / "database_split" / "subgroup_training.txt").read_text()
    with (tmp_path / "database_split" / "subgroup_validation.txt").open("a") as file:
        file.write(training)
    with pytest.raises(FrameError, match=f"{training.strip()} is in two lists: train and valid"):
        open_set(tmp_path).check()


def test_lists_and_settings_are_read_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_nifti_release(tmp_path)
    texts = [*tmp_path.glob("database_split/*.txt"), *tmp_path.rglob("Info_*.cfg")]
    for path in texts:
        path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(texts) == 3 + 6
    read_all(tmp_path)


def test_a_metaimage_header_is_read_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_mhd_release(tmp_path)
    for path in tmp_path.rglob("*.mhd"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    read_all(tmp_path)


def test_a_list_in_another_encoding_is_named_and_the_others_count(tmp_path: Path) -> None:
    write_nifti_release(tmp_path)
    path = tmp_path / "database_split" / "subgroup_training.txt"
    path.write_text(path.read_text(), encoding="utf-16")
    found = open_set(tmp_path)
    assert [study.split for study in found.studies] == ["test", "test", "valid", "valid"]
    with pytest.raises(FrameError, match=r"subgroup_training\.txt is no text in UTF-8"):
        found.check()


def test_settings_that_name_no_phase_or_one_beyond_the_sequence_are_named(tmp_path: Path) -> None:
    write_nifti_release(tmp_path)
    folder = patient_file(tmp_path, "").parent
    write_settings(folder, "4CH", 1, 9)
    assert "Info_4CH.cfg names frames beyond the 4" in refusal_of(tmp_path)
    (folder / "Info_4CH.cfg").write_text("ED: 1\n")
    assert "Info_4CH.cfg does not say which frames" in refusal_of(tmp_path)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (lambda pixels: pixels.T, "rows and columns swapped"),
        (lambda pixels: pixels[::-1], "upside down"),
        (lambda pixels: np.where(pixels == 1, 4, pixels), "labels other than 0 to 3"),
        (lambda pixels: np.where(pixels == 1, 0, pixels), "no ventricle"),
    ],
)
def test_a_mask_that_cannot_be_one_is_named(tmp_path: Path, turn, said: str) -> None:  # type: ignore[no-untyped-def]
    write_nifti_release(tmp_path)
    image, labels = heart(1.0, 0)
    save_nifti(
        patient_file(tmp_path, "4CH_ED.nii.gz"), turn(image) if said[0] in "ru" else image, (1, 1)
    )
    save_nifti(patient_file(tmp_path, "4CH_ED_gt.nii.gz"), turn(labels), (1, 1))
    message = refusal_of(tmp_path)
    assert "patient0002_4CH_ED_gt.nii.gz" in message
    assert said in message


def test_stills_with_their_phases_exchanged_are_named(tmp_path: Path) -> None:
    write_nifti_release(tmp_path)
    for end in (".nii.gz", "_gt.nii.gz"):
        ed, es = (patient_file(tmp_path, f"4CH_{phase}{end}") for phase in ("ED", "ES"))
        ed.rename(tmp_path / "aside")
        es.rename(ed)
        (tmp_path / "aside").rename(es)
    assert "phases swapped" in refusal_of(tmp_path)


def test_test_patients_without_masks_are_left_out_and_said(tmp_path: Path) -> None:
    write_nifti_release(tmp_path)
    for path in (tmp_path / "database_nifti" / "patient0001").glob("*_gt.nii.gz"):
        path.unlink()
    found = open_set(tmp_path)
    found.check()
    assert found.of_split("test") == []
    assert any("patient0001" in note for note in found.notes)


def test_without_lists_one_patient_in_ten_validates_and_that_is_said(tmp_path: Path) -> None:
    found = open_set(write_mhd_release(tmp_path, patients=12))
    found.check()
    assert found.summary()["layout"] == "CAMUS, MetaImage release"
    valid = {study.patient for study in found.of_split("valid")}
    assert valid == {"patient0001", "patient0011"}
    assert len({study.patient for study in found.of_split("train")}) == 10
    assert any("no official split" in note for note in found.notes)


def test_the_first_fold_of_the_metaimage_lists_splits_it(tmp_path: Path) -> None:
    write_mhd_release(tmp_path)
    lists = tmp_path / "listSubGroups"
    lists.mkdir()
    for word, number in (("training", 3), ("validation", 1), ("testing", 2)):
        (lists / f"subGroup1_{word}.txt").write_text(f"patient000{number}\n")
    found = open_set(tmp_path)
    found.check()
    assert {s.patient[-1]: s.split for s in found.studies} == {
        "3": "train", "1": "valid", "2": "test",
    }  # fmt: skip


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"CompressedData": "True"},
        {"ElementType": "MET_SHORT"},
        {"ElementType": "MET_USHORT", "BinaryDataByteOrderMSB": "True"},
    ],
)
def test_metaimages_are_read_in_every_way_they_are_written(
    tmp_path: Path, how: dict[str, str]
) -> None:
    write_mhd_release(tmp_path)
    image, labels = heart(1.0, 2)
    kind = {"MET_SHORT": "<i2", "MET_USHORT": ">u2"}.get(how.get("ElementType", ""), "u1")
    for end, pixels in (("", image), ("_gt", labels)):
        path = tmp_path / "patient0002" / f"patient0002_4CH_ED{end}.mhd"
        save_metaimage(path, pixels.astype(kind), "0.308 0.154 1.54", **how)
    (study, _) = [s for s in open_set(tmp_path).studies if s.patient == "patient0002"]
    recording = study.read(False)
    np.testing.assert_array_equal(recording.images[0], image)
    assert recording.spacing_mm == (0.154, 0.308)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda stem: cut(stem.with_suffix(".raw")), "patient0002_4CH_ED.raw holds"),
        (lambda stem: stem.with_suffix(".raw").unlink(), "patient0002_4CH_ED.raw is missing"),
        (lambda stem: stem.with_suffix(".mhd").write_text("NDims = 3\n"), "ED.mhd lacks DimSize"),
        (lambda stem: stem.with_suffix(".mhd").write_bytes(b"\xff\xfe"), "is no MetaImage header"),
    ],
)
def test_a_metaimage_that_is_not_whole_is_named(tmp_path: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    write_mhd_release(tmp_path)
    damage(tmp_path / "patient0002" / "patient0002_4CH_ED")
    assert said in refusal_of(tmp_path)


def ventricle(recording: Recording, frame: int) -> Ventricle:
    """The ventricle of a mask as it was drawn."""
    labels = recording.labels[frame]
    size = labels.shape[0], labels.shape[1]
    assert recording.spacing_mm is not None
    fit = make_fit(Region(0, 0, *size), size, 1024, recording.spacing_mm)
    maps = [to_network_input((labels == n).astype(np.uint8) * 255, fit)[0, 0] for n in (1, 2, 3)]
    found = measure_frame(Mask(np.stack(maps), fit, 1.0), recording.spacing_mm).lv
    assert found is not None
    return found


@pytest.mark.parametrize(("patient", "ef_percent"), [("patient0001", 63.2), ("patient0004", 62.1)])
def test_real_masks_give_the_ejection_fraction_that_their_release_states(
    shared_dir: Path, patient: str, ef_percent: float
) -> None:
    # The MetaImage release states LVef by biplane disks, the height of a disk at each instant.
    found = open_set(shared_dir / "data" / "ultrasound" / "camus" / "mhd")
    found.check()
    four, two = (
        next(s for s in found.studies if (s.patient, s.view) == (patient, view)).read(False)
        for view in ("4CH", "2CH")
    )
    assert four.spacing_mm == (0.154, 0.308)
    edv, esv = (
        biplane_volume_ml(ventricle(four, frame), ventricle(two, frame)) for frame in (0, 1)
    )
    assert edv is not None
    assert esv is not None
    assert 100 * (edv - esv) / edv == pytest.approx(ef_percent, abs=1.0)
