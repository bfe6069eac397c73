"""What every DICOM object made here begins with, and how it becomes a file.

Source:
    DICOM PS3.3 C.7.1.1 (patient), C.7.2.1 (study), C.7.3.1 (series), C.7.5.2 (enhanced general
    equipment), C.12.1 (SOP common); PS3.5 annex B.2 (UIDs from UUIDs).
"""

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import Dataset, FileDataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from model import ModelInfo
from server.export.origin import PATIENT_STUDY, Origin
from server.ingest.dataset import PRODUCT

NOTICE = "For research use only; an estimate, not a diagnosis."

_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes an object, of what and when.

    Attributes:
        origin: header of the clip, None where it was no DICOM file.
        model: the weights.
        software: version of this program.
        made: now, with a time zone.
        revision: how often outlines were corrected; each makes other objects.
        precision: of the network's arithmetic, None where unknown.
    """

    origin: Origin | None
    model: ModelInfo
    software: str
    made: datetime
    revision: int = 0
    precision: str | None = None

    @property
    def algorithm(self) -> str:
        """What found it, in words: the weights, and how they were computed with."""
        how = f", computed in {self.precision}" if self.precision else ""
        return f"{self.model.version}, weights SHA-256 {self.model.sha256}{how}"

    @property
    def identity(self) -> tuple[str, ...]:
        """What decides every bit that is found in a clip, and so is part of an object's UIDs."""
        precision = [self.precision] if self.precision else []
        return (self.model.sha256, *precision, self.software)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    Attributes:
        name: tells the objects of one clip apart; part of their UIDs.
        sop_class: its SOPClassUID.
        modality: its Modality.
        series_number: its SeriesNumber.
        description: its SeriesDescription.
    """

    name: str
    sop_class: str
    modality: str
    series_number: int
    description: str


def derived_uid(*parts: str) -> str:
    """A UID that the same parts always give, and no others."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return uid_of(digest)


def uid_of(digest: bytes) -> str:
    """Turn the first 16 bytes of a digest into a UID."""
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def begin_object(kind: Kind, maker: Maker, reading: str = "") -> Dataset:
    """Fill in the modules of patient, study, series, equipment and SOP.

    The same clip, weights, arithmetic and software give the same UIDs, so that storing an object
    twice leaves one.

    Args:
        kind: what it is.
        maker: what it is made of.
        reading: what else may differ between objects of this kind, such as the view.
    """
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    origin = maker.origin
    clip = (origin and origin.sop_instance_uid) or str(uuid.uuid4())
    revision = [str(maker.revision)] if maker.revision else []
    parts = (kind.name, clip, *maker.identity, reading, *revision)
    made.SOPClassUID = kind.sop_class
    made.SOPInstanceUID = derived_uid("instance", *parts)
    made.SeriesInstanceUID = derived_uid("series", *parts)
    study = (origin and origin.study_uid) or derived_uid("study", clip)
    made.StudyInstanceUID = study
    attributes = origin.attributes if origin else {}
    for keyword in (*_PATIENT, *_STUDY):
        setattr(made, keyword, attributes.get(keyword, ""))
    for keyword in ("IssuerOfPatientID", "StudyDescription", *PATIENT_STUDY):
        if keyword in attributes:
            setattr(made, keyword, attributes[keyword])
    made.Modality = kind.modality
    made.SeriesNumber = kind.series_number
    made.InstanceNumber = 1
    made.SeriesDescription = kind.description
    _add_equipment(made, maker)
    _add_dates(made, maker.made, attributes)
    return made


def _add_equipment(made: Dataset, maker: Maker) -> None:
    made.Manufacturer = PRODUCT
    made.ManufacturerModelName = maker.model.name
    made.DeviceSerialNumber = maker.model.sha256
    made.SoftwareVersions = [maker.software, f"{maker.model.name} {maker.model.version}"]


def _add_dates(made: Dataset, now: datetime, copied: Mapping[str, str]) -> None:
    """Say when an object is made, in the zone that holds for the times copied into it too.

    Source:
        DICOM PS3.3 C.12.1.1 (Timezone Offset From UTC holds for all dates and times of an object).
    """
    zone = copied.get("TimezoneOffsetFromUTC", "")
    if re.fullmatch(r"[+-](0\d|1[0-4])[0-5]\d", zone):
        now = now.astimezone(datetime.strptime(zone, "%z").tzinfo)
    elif "StudyTime" in copied or "StudyDate" in copied:
        zone, now = "", now.astimezone()
    else:
        zone = now.strftime("%z")
    if zone:
        made.TimezoneOffsetFromUTC = zone
    day, clock = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.InstanceCreationDate = made.ContentDate = made.SeriesDate = day
    made.InstanceCreationTime = made.ContentTime = made.SeriesTime = clock


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence."""
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = scheme
    code.CodeMeaning = meaning
    return code


def reference(sop_class: str, sop_instance: str) -> Dataset:
    """One item of a sequence of references."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    return item


def write_object(path: Path, made: Dataset, syntax: UID = ExplicitVRLittleEndian) -> None:
    """Write an object as a file.

    Args:
        path: where to.
        made: the object.
        syntax: transfer syntax that its pixel data are in.
    """
    file = FileDataset(str(path), made, preamble=b"\0" * 128)
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    try:
        dcmwrite(path, file, enforce_file_format=True)
    except OSError as error:
        raise _said_by_the_system(error) from None


def _said_by_the_system(error: OSError) -> OSError:
    """What pydicom tells again for each element that it was in, without the system's number."""
    cause = error.__cause__
    return _said_by_the_system(cause) if isinstance(cause, OSError) else error
