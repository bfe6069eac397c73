"""A clip of known size with a patient's name in it, and what was found in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import UID

from server.artefacts import Material
from server.export.deidentify import Deidentifier
from server.study import analyse_clip
from tests.server.ingest.making import save, ultrasound
from tests.server.phantom import (
    BEAT_FRAMES,
    FRAME_MS,
    SIDE_PX,
    TISSUE,
    grey_predictor,
    phantom_clip,
    picture,
)

IDENTITY = {
    "PatientName": "Sicherheit^Änne",
    "PatientID": "PID-0815",
    "IssuerOfPatientID": "KLINIK-NORD",
    "PatientBirthDate": "19511213",
    "PatientSex": "F",
    "StudyDate": "20240229",
    "StudyTime": "101112",
    "TimezoneOffsetFromUTC": "+0545",
    "StudyID": "ST-77",
    "AccessionNumber": "ACC-4242",
    "ReferringPhysicianName": "Hausarzt^Otto",
    "StudyDescription": "Verlauf nach Infarkt",
    "PatientAge": "072Y",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1001",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.1002",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.1003",
}
COUNT = 2 * BEAT_FRAMES + 12

Analysed = Callable[..., Material]


def name_patient(path: Path) -> Path:
    """Give a DICOM file a patient."""
    header = dcmread(path)
    header.SpecificCharacterSet = "ISO_IR 100"
    for keyword, value in IDENTITY.items():
        setattr(header, keyword, value)
    header.file_meta.MediaStorageSOPInstanceUID = UID(IDENTITY["SOPInstanceUID"])
    dcmwrite(path, header, enforce_file_format=True)
    return path


def analyse(path: Path, deidentifier: Deidentifier | None = None, **more: Any) -> Material:
    predictor, labels = grey_predictor(), list[bytes]()
    study = analyse_clip(path, predictor, labels=labels, **more)
    return Material(path, study, labels, predictor.model, None, deidentifier)


@pytest.fixture(scope="session")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A calibrated four-chamber view of two beats."""
    path = phantom_clip(tmp_path_factory.mktemp("heart") / "heart.dcm", COUNT)
    return analyse(name_patient(path), view="A4C")


@pytest.fixture(scope="session")
def squeezed(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """The same heart without calibration, from pixels twice as wide as tall."""
    frames = np.stack([picture(index)[:, ::2] for index in range(COUNT)])
    made = ultrasound(frames, FrameTime=str(FRAME_MS), PixelAspectRatio=[1, 2])
    path = save(made, tmp_path_factory.mktemp("squeezed") / "heart.dcm")
    return analyse(name_patient(path), view="A4C")


@pytest.fixture(scope="session")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A clip that shows no heart."""
    frames = np.full((12, SIDE_PX, SIDE_PX), TISSUE, np.uint8)
    path = tmp_path_factory.mktemp("nothing") / "nothing.dcm"
    return analyse(name_patient(save(ultrasound(frames, FrameTime=str(FRAME_MS)), path)))
