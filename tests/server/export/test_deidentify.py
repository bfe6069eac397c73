from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array

from server.artefacts import ARTEFACTS, Material, anonymous_name
from server.edits import Edit, EditSide
from server.errors import DeidentifyError
from server.export.capture import increments_ms
from server.export.deidentify import Deidentifier
from server.ingest import UnsupportedObjectError, open_clip
from server.ingest.instance import read_instance
from tests.server.export.conftest import IDENTITY, analyse, name_patient
from tests.server.export.reading import ANONYMOUS, assert_valid
from tests.server.ingest.making import save, ultrasound

KEY = b"a key of the tests"
NAME = "SICHER"
ROWS, COLUMNS, COUNT = 240, 320, 6


@pytest.fixture(scope="module")
def fan(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Speckle in a fan whose apex is at row 10, with a name written beside it."""
    rng = np.random.default_rng(3)
    row, column = np.mgrid[:ROWS, :COLUMNS].astype(float)
    down, right = row - 10, column - COLUMNS / 2
    inside = (np.abs(right) < down * np.tan(np.radians(38))) & (np.hypot(down, right) < 205)
    frames = np.stack([rng.integers(60, 200, (ROWS, COLUMNS)) * inside for _ in range(COUNT)])
    frames = frames.astype(np.uint8)
    for frame in frames:
        cv2.putText(frame, NAME, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    path = save(ultrasound(frames), tmp_path_factory.mktemp("fan") / "fan.dcm")
    return analyse(name_patient(path), Deidentifier(KEY))


def uids_of(made: Dataset) -> Iterator[str]:
    yield from (str(e.value) for e in made.iterall() if e.VR == "UI" and e.value)


@pytest.mark.parametrize("name", [n for n, each in ARTEFACTS.items() if n.endswith(".dcm")])
def test_no_object_tells_who_the_patient_is(fan: Material, name: str, tmp_path: Path) -> None:
    path = tmp_path / anonymous_name(name)
    ARTEFACTS[name].write(path, fan)
    content = path.read_bytes()
    for value in IDENTITY.values():
        for encoding in ("utf-8", "latin-1"):
            if len(value) > 3:
                assert value.encode(encoding) not in content
    made = dcmread(path)
    # PS3.15 table E.1-1 and E.1.1: what must be gone, and what must say so.
    assert made.PatientIdentityRemoved == "YES"
    assert made.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert made.LongitudinalTemporalInformationModified == "REMOVED"
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"):
        assert made[keyword].value in ("", None)
    standard = "1.2.840.10008."
    assert all(uid.startswith(("2.25.", standard)) for uid in uids_of(made))
    # dciodvfy knows no label maps yet, which came to the standard in 2024 (supplement 243).
    if not name.startswith("seg-"):
        assert_valid(path, ANONYMOUS)


def test_no_file_without_the_patient_tells_who_corrected_it_or_on_which_day(
    fan: Material, tmp_path: Path
) -> None:
    """PS3.15 table E.1-1 takes dates and operators out of every object, text included."""
    side = EditSide({"lv": [[(60.0, 150.0), (90.0, 150.0), (90.0, 170.0)]]}, 300.0, None)
    edit = Edit(1, 2, "reader-7", "2024-02-29T10:11:12+00:00", side, side)
    corrected = replace(fan, study=fan.study.with_edits([edit]))
    for name in ("sr.dcm", "sr-1500.dcm", "report.html"):
        for is_anonymous in (True, False):
            it = corrected if is_anonymous else replace(corrected, deidentifier=None)
            ARTEFACTS[name].write(tmp_path / name, it)
            content = (tmp_path / name).read_bytes()
            assert b"orrect" in content
            assert [b"reader-7" in content, b"2024-02-29" in content] == 2 * [not is_anonymous]


def test_pseudonyms_link_the_objects_of_one_key_and_of_no_other(
    fan: Material, tmp_path: Path
) -> None:
    made = []
    for number, (name, key) in enumerate([("seg.dcm", KEY), ("sr.dcm", KEY), ("sr.dcm", b"other")]):
        path = tmp_path / str(number)
        ARTEFACTS[name].write(path, replace(fan, deidentifier=Deidentifier(key)))
        made.append(dcmread(path))
    seg, report, foreign = made
    assert (seg.StudyInstanceUID, seg.PatientID) == (report.StudyInstanceUID, report.PatientID)
    assert foreign.StudyInstanceUID != report.StudyInstanceUID
    assert foreign.PatientID != report.PatientID
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    referenced = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    source = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    assert referenced.ReferencedSOPInstanceUID == source.ReferencedSOPInstanceUID


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ({"PatientID": "1", "PatientName": "A"}, {"PatientID": "1", "PatientName": "A^B"}, True),
        ({"PatientName": "A"}, {"PatientName": "A"}, True),
        ({"PatientID": "1"}, {"PatientID": "2"}, False),
        (
            {"PatientID": "1", "IssuerOfPatientID": "NORTH"},
            {"PatientID": "1", "IssuerOfPatientID": "SOUTH"},
            False,
        ),
        ({}, {}, False),
    ],
)
def test_a_pseudonym_is_of_one_patient(
    first: dict[str, str], second: dict[str, str], *, is_one: bool
) -> None:
    """PS3.3 C.7.1.1: an identifier is unique within its issuer; of no patient nothing is known."""
    made = []
    for number, patient in enumerate((first, second)):
        clip = Dataset()
        clip.PatientID = clip.PatientName = ""
        clip.StudyInstanceUID = f"1.2.{number}"
        for keyword, value in patient.items():
            setattr(clip, keyword, value)
        Deidentifier(KEY).apply(clip)
        made.append((clip.PatientID, clip.PatientName))
    assert (made[0] == made[1]) == is_one


def test_what_is_written_beside_the_fan_is_black_and_the_fan_is_whole(fan: Material) -> None:
    with replace(fan, deidentifier=None).frames() as frames:
        before = np.stack([frame.pixels_HW for frame in frames])
    with fan.frames() as frames:
        after = np.stack([frame.pixels_HW for frame in frames])
    assert before[:, :24, :90].any()
    assert not after[:, :24, :90].any()
    middle = (slice(None), slice(60, 180), slice(140, 180))
    np.testing.assert_array_equal(after[middle], before[middle])


@pytest.mark.parametrize(
    "name", ["secondary-capture.dcm", "overlay.mp4", "still.png", "report.html"]
)
def test_no_picture_is_given_where_the_fan_cannot_be_told(
    heart: Material, name: str, tmp_path: Path
) -> None:
    """The phantom fills its whole image."""
    with pytest.raises(DeidentifyError):
        ARTEFACTS[name].write(tmp_path / name, replace(heart, deidentifier=Deidentifier(KEY)))


def test_the_capture_shows_every_frame_with_its_time(heart: Material, tmp_path: Path) -> None:
    path = tmp_path / "capture.dcm"
    ARTEFACTS["secondary-capture.dcm"].write(path, heart)
    assert_valid(path)
    made = dcmread(path)
    assert made.FrameTime == pytest.approx(40.0)
    assert made.NumberOfFrames == len(heart.labels)
    assert pixel_array(path, index=len(heart.labels) - 1).shape == (made.Rows, made.Columns, 3)
    assert made.PatientName == IDENTITY["PatientName"]
    assert made.BurnedInAnnotation == "YES"


@pytest.mark.parametrize(("count", "period"), [(1, "40"), (2, "40"), (6, "0")])
def test_the_capture_is_valid_also_of_one_picture_and_where_times_are_unknown(
    tmp_path: Path, count: int, period: str
) -> None:
    frames = np.full((count, ROWS, COLUMNS), 60, np.uint8)
    clip = name_patient(save(ultrasound(frames, FrameTime=period), tmp_path / "clip.dcm"))
    path = tmp_path / "capture.dcm"
    ARTEFACTS["secondary-capture.dcm"].write(path, analyse(clip))
    assert_valid(path)
    assert dcmread(path).NumberOfFrames == count
    assert ("FrameTime" in dcmread(path)) == (count > 1 and period != "0")


def test_the_uneven_times_of_a_long_clip_fit_into_their_attribute() -> None:
    """PS3.5 section 7.1.2: 65534 bytes at most; the last picture is where it was."""
    starts = list(np.cumsum([index * 7919 % 977 / 1e6 + 0.033 for index in range(10_000)]))
    steps_ms = increments_ms(starts)
    assert len("\\".join(steps_ms)) <= 65_534
    shown_ms = np.cumsum([float(step) for step in steps_ms])
    np.testing.assert_allclose(shown_ms, 1000 * (np.array(starts) - starts[0]), atol=0.006)
    assert increments_ms([1.0, 1.02, 1.05]) == ["0", "20.000", "30.000"]


@pytest.mark.parametrize("is_anonymous", [True, False])
def test_a_capture_that_a_pacs_sends_back_is_no_clip(
    fan: Material, tmp_path: Path, *, is_anonymous: bool
) -> None:
    path = tmp_path / "capture.dcm"
    it = fan if is_anonymous else replace(fan, deidentifier=None)
    ARTEFACTS["secondary-capture.dcm"].write(path, it)
    with pytest.raises(UnsupportedObjectError, match="GDKVM Live made"), open_clip(path):
        pass
    assert isinstance(read_instance(path).refusal, UnsupportedObjectError)
