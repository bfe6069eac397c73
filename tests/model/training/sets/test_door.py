import subprocess
from pathlib import Path

import numpy as np
import pytest

from model.errors import FrameError
from model.training.sets import open_set
from tests.model.training.hearts import draw_labels, write_patient, write_still


def test_stills_are_known_by_their_folders(data: Path) -> None:
    found = open_set(data)
    found.check()
    summary = found.summary()
    assert summary["layout"] == "A4C PNG stills"
    assert summary["splits"]["train"] == {
        "patients": 2,
        "views": {"4CH": 2, "2CH": 0},
        "labelled_frames": 4,
    }
    assert summary["splits"]["test"]["patients"] == 0


def test_two_views_of_a_patient_are_two_studies(data: Path) -> None:
    for phase, size in (("ED", 1.0), ("ES", 0.8)):
        write_still(data / "train", f"patient0001_2CH_{phase}", draw_labels(size), 5)
    names = [study.name for study in open_set(data).of_split("train")]
    assert names == ["patient0001_2CH", "patient0001", "patient0002"]
    assert [s.name for s in open_set(data).of_split("train", ["4CH"])] == names[1:]


def test_every_missing_still_is_named(data: Path) -> None:
    for name in ("patient0001_4CH_ES_gt.png", "patient0002_4CH_ED.png"):
        (data / "train" / name).unlink()
    with pytest.raises(FrameError) as refusal:
        open_set(data).check()
    assert "patient0001_4CH_ES_gt.png is missing" in refusal.value.message
    assert "patient0002_4CH_ED.png is missing" in refusal.value.message


def test_a_still_cut_off_in_the_middle_is_named(data: Path) -> None:
    path = data / "train" / "patient0001_4CH_ED.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FrameError, match=r"patient0001_4CH_ED\.png is missing, cut off or no PNG"):
        open_set(data).of_split("train")[0].read(False)


def test_a_patient_in_two_splits_is_refused(data: Path) -> None:
    write_patient(data / "valid", "patient0001", 1)
    with pytest.raises(FrameError, match="one patient is in train"):
        open_set(data).check()


def test_every_file_has_its_hash(data: Path) -> None:
    hashes = open_set(data).hashes()
    assert len(hashes) == 12
    # sha256sum of the file, from another program
    path = "train/patient0001_4CH_ED_gt.png"
    assert hashes[path] == _sha256sum(data / path)


def _sha256sum(path: Path) -> str:
    done = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


@pytest.mark.parametrize("content", [None, "file", "empty", "other"])
def test_what_is_no_data_set_is_refused_with_the_forms_that_are(
    tmp_path: Path, content: str | None
) -> None:
    root = tmp_path / "set"
    if content == "file":
        root.write_text("no folder")
    elif content:
        root.mkdir()
    if content == "other":
        np.save(root / "images.npy", np.zeros(3))
    with pytest.raises(FrameError) as refusal:
        open_set(root)
    assert str(root) in refusal.value.message
    if content in ("empty", "other"):
        for form in ("PNG", "NIfTI", "MetaImage", "EchoNet", "DICOM"):
            assert form in refusal.value.message
