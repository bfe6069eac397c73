"""What a DICOM instance calls itself, and whether it is one that is read here, by its header.

Source:
    DICOM PS3.5 section 9 (unique identifiers).
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from server.ingest.clip import IngestLimits
from server.ingest.dataset import STORED_CLASSES, check_object, open_data_set
from server.ingest.elements import Header
from server.ingest.errors import IngestError, MalformedHeaderError
from server.ingest.tags import Tag

__all__ = ["STORED_CLASSES", "Instance", "read_instance"]

_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Instance:
    """Identifiers of an instance, empty where they are missing or none.

    Attributes:
        refusal: why it is not read here, None where it may be.
    """

    sop_class: str = ""
    sop_instance: str = ""
    study: str = ""
    refusal: IngestError | None = None


def read_instance(path: Path, limits: IngestLimits | None = None) -> Instance:
    """Read an instance's identifiers; what is wrong with it is in the answer."""
    limits = limits or IngestLimits()
    try:
        with path.open("rb") as file, open_data_set(file, limits) as data_set:
            header = data_set.header
            found = Instance(
                _uid(header, Tag.SOPClassUID),
                _uid(header, Tag.SOPInstanceUID),
                _uid(header, Tag.StudyInstanceUID),
            )
            try:
                check_object(header)
                _check_identity(found)
            except IngestError as error:
                return replace(found, refusal=error)
            return found
    except IngestError as error:
        return Instance(refusal=error)


def _uid(header: Header, tag: Tag) -> str:
    text = header.text(tag)
    return text if _UID.fullmatch(text) else ""


def _check_identity(instance: Instance) -> None:
    """Refuse what nothing can refer to.

    Raises:
        MalformedHeaderError: it lacks what every instance must have.
    """
    if not instance.sop_class or not instance.sop_instance:
        raise MalformedHeaderError("the instance has no SOPClassUID, or no SOPInstanceUID")
