import errno
import os
import resource
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, config
from pydicom.uid import SegmentationStorage

from server.artefacts import Material
from server.export.objects import Kind, Maker, begin_object, write_object
from server.export.origin import Origin, read_origin
from tests.server.export.conftest import IDENTITY
from tests.server.ingest.making import save, ultrasound
from tests.server.phantom import grey_predictor

KIND = Kind("seg", SegmentationStorage, "SEG", 1, "masks")
MADE = datetime(2024, 2, 29, 23, 30, tzinfo=UTC)


def made_from(attributes: dict[str, str]) -> Any:
    origin = Origin("1.2", "1.3", "1.4", "1.5", None, attributes, None, None, (1, 1))
    return begin_object(KIND, Maker(origin, grey_predictor().model, "1", MADE))


def test_what_another_arithmetic_finds_is_another_object() -> None:
    """DICOM PS3.5 9: a UID names one object; masks in eight bits are others than in float32."""
    origin = Origin("1.2", "1.3", "1.4", "1.5", None, {}, None, None, (1, 1))
    model = grey_predictor().model
    made = {
        begin_object(KIND, Maker(origin, model, "1", MADE, precision=each)).SOPInstanceUID
        for each in (None, "f32", "bf16", "int8", "int8")
    }
    assert len(made) == 4


@pytest.mark.parametrize(
    ("zone", "day", "clock"),
    [("+0200", "20240301", "013000"), ("-0330", "20240229", "200000")],
)
def test_all_times_of_an_object_are_of_the_zone_that_its_clip_names(
    zone: str, day: str, clock: str
) -> None:
    """DICOM PS3.3 C.12.1.1: the offset holds for the study's times as well, which are copied."""
    made = made_from({"StudyDate": day, "StudyTime": "101112", "TimezoneOffsetFromUTC": zone})
    assert (made.TimezoneOffsetFromUTC, made.StudyTime) == (zone, "101112")
    assert (made.ContentDate, made.ContentTime) == (day, clock)


@pytest.mark.parametrize("zone", [None, "CET", "+9900"])
def test_no_zone_is_said_of_times_whose_zone_nobody_knows(zone: str | None) -> None:
    more = {} if zone is None else {"TimezoneOffsetFromUTC": zone}
    made = made_from({"StudyDate": "20240229", "StudyTime": "101112", **more})
    assert "TimezoneOffsetFromUTC" not in made
    assert made_from({}).TimezoneOffsetFromUTC == "+0000"


@pytest.mark.parametrize("depth", [0, 2])
def test_what_the_system_says_of_a_file_is_told_and_not_as_a_fault_of_an_element(
    tmp_path: Path, depth: int
) -> None:
    made = made_from({})
    made.SOPClassUID, made.SOPInstanceUID = SegmentationStorage, "1.2.3"
    inner = made
    for _ in range(depth):
        inner.ReferencedSeriesSequence = [Dataset()]
        inner = inner.ReferencedSeriesSequence[0]
    inner.PixelData = bytes(1 << 20)
    inner["PixelData"].VR = "OB"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as refusal:
            write_object(tmp_path / "seg.dcm", made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refusal.value.errno == errno.EFBIG


def test_the_zone_is_read_from_the_clip_s_header(heart: Material) -> None:
    made = begin_object(KIND, heart.maker())
    assert made.TimezoneOffsetFromUTC == IDENTITY["TimezoneOffsetFromUTC"]


@pytest.mark.parametrize(
    ("syntax", "method"),
    [
        (".50", "ISO_10918_1"),
        (".91", "ISO_15444_1"),
        (".101", "ISO_13818_2"),
        (".102.1", "ISO_14496_10"),
        (".104", "ISO_14496_10"),
        (".106.1", "ISO_14496_10"),
        (".107", "ISO_23008_2"),
        (".108", "ISO_23008_2"),
        (".203", "ISO_15444_15"),
    ],
)
def test_how_pixels_were_compressed_is_told_where_the_header_is_silent(
    tmp_path: Path, syntax: str, method: str
) -> None:
    """The terms of DICOM PS3.3 C.7.6.1.1.5.1, for the transfer syntaxes of PS3.6 annex A."""
    made = ultrasound(np.zeros((1, 48, 64), np.uint8))
    path = save(made, tmp_path / "clip", "1.2.840.10008.1.2.4" + syntax, [b"\xff\xd8\xff\xd9"])
    origin = read_origin(path)
    assert origin is not None
    assert origin.lossy is not None
    assert origin.lossy.method == method


@pytest.mark.parametrize(
    ("keyword", "most"),
    [("PatientID", 64), ("IssuerOfPatientID", 64), ("StudyID", 16), ("AccessionNumber", 16)],
)
def test_a_key_that_is_too_long_is_left_out_since_cut_it_would_be_another(
    tmp_path: Path, keyword: str, most: int
) -> None:
    """The lengths of LO and SH in DICOM PS3.5 table 6.2-1."""
    kept = []
    for length in (most, most + 1):
        made = ultrasound(np.zeros((1, 48, 64), np.uint8), PatientID=None)
        with config.disable_value_validation():
            setattr(made, keyword, "7" * length)
            made.StudyDescription = "d" * 70
            origin = read_origin(save(made, tmp_path / str(length)))
        assert origin is not None
        assert origin.attributes["StudyDescription"] == "d" * 64
        kept.append(origin.attributes.get(keyword))
    assert kept == ["7" * most, None]


@pytest.mark.parametrize(
    "keyword", ["PatientID", "IssuerOfPatientID", "StudyID", "AccessionNumber"]
)
@pytest.mark.parametrize(
    ("sets", "written", "kept"),
    [
        ("ISO_IR 100", b"M\xfcller-7", "Müller-7"),
        ("ISO_IR 100", b" 4711\0\0", "4711"),
        ("ISO_IR 100", b"CLINIC\\4711", None),
        ("ISO_IR 100", b"47\x0111", None),
        ("ISO_IR 100", b"47\t11", None),
        ("ISO_IR 192", b"M\xfcller-7", None),
    ],
)
def test_a_key_that_is_not_whole_is_left_out_since_it_would_be_another(
    tmp_path: Path, keyword: str, sets: str, written: bytes, kept: str | None
) -> None:
    """DICOM PS3.5 6.2: a backslash parts two values, and LO and SH have no control characters."""
    made = ultrasound(np.zeros((1, 48, 64), np.uint8), PatientID="x", SpecificCharacterSet=sets)
    setattr(made, keyword, "X" * len(written))
    path = save(made, tmp_path / "clip")
    path.write_bytes(path.read_bytes().replace(b"X" * len(written), written))
    origin = read_origin(path)
    assert origin is not None
    assert origin.attributes.get(keyword) == kept


@pytest.mark.parametrize(
    ("told", "kept"), [("F", "F"), ("O", "O"), ("U", None), ("FEMALE", None), ("1", None)]
)
def test_a_sex_that_dicom_does_not_know_is_left_out(
    tmp_path: Path, told: str, kept: str | None
) -> None:
    """The enumerated values of DICOM PS3.3 C.7.1.1."""
    made = ultrasound(np.zeros((1, 48, 64), np.uint8), PatientSex=told)
    origin = read_origin(save(made, tmp_path / "clip"))
    assert origin is not None
    assert origin.attributes.get("PatientSex") == kept


@pytest.mark.parametrize(
    ("sets", "written", "name"),
    [
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"
            b"=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        ),
        (
            "\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"
            b"=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (
            "\\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
            "Zhang^XiaoDong=张^小东",
        ),
        ("ISO 2022 IR 58", b"\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", "张^小东"),
        ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
        (
            "ISO_IR 192",
            b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1",
            "Wang^XiaoDong=王^小東",
        ),
    ],
)
def test_names_are_read_in_the_character_sets_of_the_standard_s_examples(
    tmp_path: Path, sets: str, written: bytes, name: str
) -> None:
    """DICOM PS3.5 annexes H (Japanese), I (Korean), J (Unicode and GB18030) and K (GB 2312)."""
    made = ultrasound(np.zeros((1, 48, 64), np.uint8), PatientName="@" * len(written))
    made.add_new(0x00080005, "CS", sets)
    path = save(made, tmp_path / "clip")
    content = path.read_bytes()
    assert content.count(b"@" * len(written)) == 1
    path.write_bytes(content.replace(b"@" * len(written), written))
    origin = read_origin(path)
    assert origin is not None
    assert origin.attributes["PatientName"] == name


@pytest.mark.parametrize(
    ("sets", "codec"),
    [
        ("ISO IR 192", "utf-8"),
        ("ISO_IR_192", "utf-8"),
        ("UTF-8", "utf-8"),
        ("ISO-IR 100", "latin-1"),
        ("iso_ir 144", "iso8859-5"),
        ("NONE SUCH", "latin-1"),
    ],
)
def test_a_character_set_that_is_nearly_spelt_right_is_meant(
    tmp_path: Path, sets: str, codec: str
) -> None:
    name = "Люк^Ян" if codec in ("utf-8", "iso8859-5") else "Änne^Jürgen"
    written = name.encode(codec)
    with config.disable_value_validation():
        made = ultrasound(np.zeros((1, 48, 64), np.uint8), PatientName="@" * len(written))
        made.add_new(0x00080005, "CS", sets)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = save(made, tmp_path / "clip")
    path.write_bytes(path.read_bytes().replace(b"@" * len(written), written))
    origin = read_origin(path)
    assert origin is not None
    assert origin.attributes["PatientName"] == name
