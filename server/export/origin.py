"""The DICOM header that a clip came with: what objects made of the clip repeat of it.

Headers in the field hold anything, so every value is brought into the shape that its value
representation asks for, or left out.

Source:
    DICOM PS3.5 section 6.2 (value representations), PS3.3 C.7.1.1, C.7.2.1, C.7.2.2, C.7.4.1.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword

from server.ingest import IngestLimits
from server.ingest.archive import the_only_clip
from server.ingest.dataset import open_data_set
from server.ingest.elements import Header
from server.ingest.sniff import SNIFF_BYTES, Kind, sniff
from server.ingest.tags import Tag

PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
STUDY = (
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "StudyDescription", "TimezoneOffsetFromUTC",
)  # fmt: skip
_KEYS = ("PatientID", "IssuerOfPatientID", "StudyID", "AccessionNumber")
"""What others look patients and studies up by: cut short, it would name somebody else's."""
_SEXES = ("M", "F", "O")
"""All that may be said of PatientSex (PS3.3 C.7.1.1)."""
PATIENT_STUDY = ("PatientAge", "PatientSize", "PatientWeight")
_IDENTIFIERS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
)  # fmt: skip
_IMAGE = (
    "SpecificCharacterSet", "BurnedInAnnotation", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


_KEYWORDS = {
    keyword: _tag(keyword) for keyword in PATIENT + STUDY + PATIENT_STUDY + _IDENTIFIERS + _IMAGE
}
_LAYOUT = (Tag.TransferSyntaxUID, Tag.Rows, Tag.Columns, Tag.SamplesPerPixel, Tag.NumberOfFrames)
_TAGS = frozenset(_KEYWORDS.values()) | frozenset(int(tag) for tag in _LAYOUT)

_LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.100": "ISO_13818_2",
    "1.2.840.10008.1.2.4.101": "ISO_13818_2",
    "1.2.840.10008.1.2.4.102": "ISO_14496_10",
    "1.2.840.10008.1.2.4.103": "ISO_14496_10",
    "1.2.840.10008.1.2.4.104": "ISO_14496_10",
    "1.2.840.10008.1.2.4.105": "ISO_14496_10",
    "1.2.840.10008.1.2.4.106": "ISO_14496_10",
    "1.2.840.10008.1.2.4.107": "ISO_23008_2",
    "1.2.840.10008.1.2.4.108": "ISO_23008_2",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
"""How lossy a transfer syntax is, by the terms of PS3.3 C.7.6.1.1.5.1."""


@dataclass(frozen=True, slots=True)
class Lossy:
    """That pixels lost something on their way, by how much and how.

    Attributes:
        ratio: size before over size after.
        method: a term of PS3.3 C.7.6.1.1.5.1.
    """

    ratio: str
    method: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What a clip's DICOM header says beside its pixels.

    Attributes:
        sop_class_uid: SOPClassUID; the next four likewise, None where absent or no UID.
        attributes: clean values of the patient and study modules by keyword; absent ones lack.
        lossy: None where nothing was lost.
        is_burned_in: BurnedInAnnotation, None where the header does not say.
        size: rows and columns of its pictures as they are stored.
    """

    sop_class_uid: str | None
    sop_instance_uid: str | None
    study_uid: str | None
    series_uid: str | None
    frame_of_reference_uid: str | None
    attributes: Mapping[str, str]
    lossy: Lossy | None
    is_burned_in: bool | None
    size: tuple[int, int]


def read_origin(path: Path, limits: IngestLimits | None = None) -> Origin | None:
    """Read the header of an uploaded clip, also inside a zip.

    Returns:
        None where the clip is no DICOM file.

    Raises:
        IngestError: it cannot be read; a clip that was analysed can.
    """
    limits = limits or IngestLimits()
    with path.open("rb") as file, _dicom_in(file, limits) as dicom:
        if dicom is None:
            return None
        with open_data_set(dicom, limits, _TAGS) as data_set:
            return _origin_of(data_set.header, data_set.window.size)


@contextmanager
def _dicom_in(file: BinaryIO, limits: IngestLimits) -> Iterator[BinaryIO | None]:
    kind = sniff(file.read(SNIFF_BYTES))
    file.seek(0)
    if kind is Kind.ZIP:
        with the_only_clip(file, limits) as (inner, inner_kind):
            yield inner if inner_kind is Kind.DICOM else None
    else:
        yield file if kind is Kind.DICOM else None


def _origin_of(header: Header, stored_bytes: int) -> Origin:
    decode = _decoder(header.text(_KEYWORDS["SpecificCharacterSet"]))
    attributes = {}
    for keyword in PATIENT + STUDY + PATIENT_STUDY:
        text = decode(header.values.get(_KEYWORDS[keyword], b""))
        value = clean(dictionary_VR(keyword), text, is_key=keyword in _KEYS)
        if value and not (keyword == "PatientSex" and value not in _SEXES):
            attributes[keyword] = value
    found = {keyword: clean("UI", header.text(_KEYWORDS[keyword])) for keyword in _IDENTIFIERS}
    burned_in = header.text(_KEYWORDS["BurnedInAnnotation"])
    return Origin(
        sop_class_uid=found["SOPClassUID"] or None,
        sop_instance_uid=found["SOPInstanceUID"] or None,
        study_uid=found["StudyInstanceUID"] or None,
        series_uid=found["SeriesInstanceUID"] or None,
        frame_of_reference_uid=found["FrameOfReferenceUID"] or None,
        attributes=attributes,
        lossy=_lossy_of(header, stored_bytes),
        is_burned_in={"YES": True, "NO": False}.get(burned_in),
        size=(header.integer(Tag.Rows) or 1, header.integer(Tag.Columns) or 1),
    )


def _lossy_of(header: Header, stored_bytes: int) -> Lossy | None:
    """Take over what the header says; the ratio of a silent one from the sizes."""
    syntax = header.text(Tag.TransferSyntaxUID).removesuffix(".1")
    method = clean("CS", header.text(_KEYWORDS["LossyImageCompressionMethod"]))
    method = method or _LOSSY_METHODS.get(syntax, "")
    is_lossy = header.text(_KEYWORDS["LossyImageCompression"]) == "01" or syntax in _LOSSY_METHODS
    if not is_lossy:
        return None
    ratio = header.number(_KEYWORDS["LossyImageCompressionRatio"])
    if ratio is None or ratio <= 0:
        frames = header.number(Tag.NumberOfFrames) or 1
        sides = [header.integer(tag) or 1 for tag in (Tag.Rows, Tag.Columns, Tag.SamplesPerPixel)]
        ratio = max(1.0, sides[0] * sides[1] * sides[2] * frames / max(1, stored_bytes))
    return Lossy(f"{ratio:.4g}", method or "ISO_10918_1")


def _decoder(character_set: str) -> Callable[[bytes], str]:
    """Choose how texts are decoded; what cannot be is replaced, never an error."""
    names = [_spelt(name.strip()) for name in character_set.split("\\")]
    codecs = [python_encoding[name] for name in names if name in python_encoding] or ["latin-1"]
    if len(codecs) == 1:
        return lambda raw: _ESCAPE.sub("", raw.decode(codecs[0], "replace"))

    def decode(raw: bytes) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = str(decode_bytes(raw, codecs, {ord("\\"), ord("^"), ord("=")}))
        return _ESCAPE.sub("", text)

    return decode


def _spelt(character_set: str) -> str:
    """Spell a character set as the standard does, where a writer spelt it nearly so."""
    told = re.fullmatch(r"ISO[ _-]*(2022)?[ _-]*IR[ _-]*(\d+)", character_set, re.IGNORECASE)
    if told is not None:
        return f"{'ISO 2022 IR' if told[1] else 'ISO_IR'} {told[2]}"
    is_utf_8 = re.fullmatch(r"UTF[ _-]?8", character_set, re.IGNORECASE)
    return "ISO_IR 192" if is_utf_8 else character_set


_ESCAPE = re.compile(r"\x1b[ -/]+[0-~]")
"""A change of character set that a decoder left in place, as that of GB 2312 does.

Source:
    ISO/IEC 2022 section 13 (structure of escape sequences), which DICOM PS3.5 section 6.1.2.5 uses.
"""


_LENGTHS = {"LO": 64, "SH": 16, "PN": 194}


def clean(vr: str, text: str, *, is_key: bool = False) -> str:
    """Bring a text into the shape of a value representation; empty where it cannot be.

    Args:
        vr: the value representation.
        text: the value as it was found.
        is_key: it is nothing unless it is whole: what is cut at a backslash, or has lost a letter,
            names somebody else.
    """
    if is_key and not _is_whole(text.strip(" \0\r\n")):
        return ""
    text = "".join(letter for letter in text if letter.isprintable()).strip()
    if vr == "UI":
        is_uid = len(text) <= 64 and re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", text)
        return text if is_uid else ""
    text = text.partition("\\")[0].strip()
    if vr == "PN":
        groups = (group[:64].rstrip("^ ") for group in text.split("=")[:3])
        return "=".join(groups).rstrip("=")
    if vr in _LENGTHS:
        is_cut = len(text) > _LENGTHS[vr]
        return "" if is_cut and is_key else text[: _LENGTHS[vr]].strip()
    return _CLEANERS[vr](text)


def _is_whole(text: str) -> bool:
    """Whether a text holds letters alone: no second value, and none that could not be decoded."""
    return text.isprintable() and "\\" not in text and "\N{REPLACEMENT CHARACTER}" not in text


def _date(text: str) -> str:
    # ACR-NEMA wrote 1994.01.30, which readers are told to accept (PS3.5 table 6.2-1).
    found = re.fullmatch(r"(\d{4})\.?(0[1-9]|1[0-2])\.?(0[1-9]|[12]\d|3[01])", text)
    return "".join(found.groups()) if found else ""


def _time(text: str) -> str:
    found = re.fullmatch(r"([01]\d|2[0-3]):?([0-5]\d)?:?([0-5]\d|60)?(\.\d{1,6})?", text)
    if not found:
        return ""
    hour, minute, second, fraction = found.groups("")
    return f"{hour}{minute}{second}{fraction if second else ''}" if minute else hour


def _decimal(text: str) -> str:
    is_number = len(text) <= 16 and re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", text)
    return text if is_number else ""


def _code(text: str) -> str:
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else ""


def _age(text: str) -> str:
    return text if re.fullmatch(r"\d{3}[DWMY]", text) else ""


_CLEANERS = {"DA": _date, "TM": _time, "DS": _decimal, "CS": _code, "AS": _age}
