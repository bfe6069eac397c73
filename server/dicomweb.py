"""What a DICOMweb store answers: the response module, as DICOM JSON or XML.

Source:
    DICOM PS3.18 section 10.5 and annex I (store transaction), annex F (DICOM JSON model);
    PS3.19 annex A (native DICOM model).
"""

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from model import EchoError
from server.ingest.instance import Instance

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
STUDY_DIFFERS = 0xA901
CANNOT_UNDERSTAND = 0xC000
SYNTAX_NOT_SUPPORTED = 0xC122

_REASONS = {
    "unsupported_modality": CLASS_NOT_SUPPORTED,
    "unsupported_object": CLASS_NOT_SUPPORTED,
    "no_pixels": CLASS_NOT_SUPPORTED,
    "unsupported_transfer_syntax": SYNTAX_NOT_SUPPORTED,
    "too_large": OUT_OF_RESOURCES,
    "storage_full": OUT_OF_RESOURCES,
    "full": OUT_OF_RESOURCES,
    "draining": OUT_OF_RESOURCES,
    "store_unavailable": OUT_OF_RESOURCES,
    "overtaken": OUT_OF_RESOURCES,
    "engine_failed": PROCESSING_FAILURE,
    "engine_dead": PROCESSING_FAILURE,
    "another_study": STUDY_DIFFERS,
}

_CREATOR = "GDKVM LIVE"
_CREATOR_TAG, _CLIP_TAG = "00450010", "00451001"
"""Private attributes of an instance that was taken: where its clip is."""

_KEYWORDS = {
    "00081150": "ReferencedSOPClassUID",
    "00081155": "ReferencedSOPInstanceUID",
    "00081190": "RetrieveURL",
    "00081197": "FailureReason",
    "00081198": "FailedSOPSequence",
    "00081199": "ReferencedSOPSequence",
    "0008119A": "OtherFailuresSequence",
}

_NO_URL: dict[str, Any] = {"00081190": {"vr": "UR"}}
"""RetrieveURL, which must be there and is empty: what is stored is measured, not given back."""

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"


def reason_of(error: EchoError) -> int:
    """The failure reason or DIMSE status that says why an instance was not taken."""
    return _REASONS.get(error.code, CANNOT_UNDERSTAND)


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one instance.

    Attributes:
        place: the path that its state can be asked for at, None unless it was taken.
        error: why it was not.
    """

    instance: Instance
    place: str | None = None
    error: EchoError | None = None


def status_of(outcomes: list[Stored]) -> int:
    """200 where all were taken, 202 where some were, 409 where none was."""
    taken = sum(each.error is None for each in outcomes)
    if taken == len(outcomes):
        return 200
    return 202 if taken else 409


def to_json(outcomes: list[Stored]) -> dict[str, Any]:
    """The store instances response module, in the DICOM JSON model."""
    taken = [_taken(each) for each in outcomes if each.error is None]
    failed, others = [], []
    for each in outcomes:
        if each.error is None:
            continue
        reason = {"00081197": {"vr": "US", "Value": [reason_of(each.error)]}}
        if each.instance.sop_instance:
            failed.append(_reference(each.instance) | reason)
        else:
            others.append(reason)
    sequences = (("00081198", failed), ("00081199", taken), ("0008119A", others))
    return _NO_URL | {tag: {"vr": "SQ", "Value": items} for tag, items in sequences if items}


def _reference(instance: Instance) -> dict[str, Any]:
    return {"00081150": _uid(instance.sop_class), "00081155": _uid(instance.sop_instance)}


def _uid(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]} if value else {"vr": "UI"}


def _taken(outcome: Stored) -> dict[str, Any]:
    clip = {
        _CREATOR_TAG: {"vr": "LO", "Value": [_CREATOR]},
        _CLIP_TAG: {"vr": "UR", "Value": [outcome.place]},
    }
    return _reference(outcome.instance) | _NO_URL | clip


def to_xml(document: dict[str, Any]) -> bytes:
    """The same in the native DICOM model, without what is private."""
    root = ElementTree.Element("NativeDicomModel", {"xmlns": _NAMESPACE})
    _append(root, document)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _append(parent: ElementTree.Element, document: dict[str, Any]) -> None:
    for tag, attribute in sorted(document.items()):
        if tag not in _KEYWORDS:
            continue
        facts = {"tag": tag, "vr": attribute["vr"], "keyword": _KEYWORDS[tag]}
        element = ElementTree.SubElement(parent, "DicomAttribute", facts)
        for number, value in enumerate(attribute.get("Value", []), 1):
            kind = "Item" if attribute["vr"] == "SQ" else "Value"
            child = ElementTree.SubElement(element, kind, {"number": str(number)})
            if isinstance(value, dict):
                _append(child, value)
            else:
                child.text = str(value)
