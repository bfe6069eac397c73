import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.ingest import IngestError, IngestLimits, open_clip, unpack_study
from tests.server.ingest.making import COUNT, grey_cine, save, ultrasound


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refusal_of(path: Path, limits: IngestLimits | None = None) -> str:
    with pytest.raises(IngestError) as refusal, open_clip(path, limits) as clip:
        list(clip.frames)
    return refusal.value.code


@pytest.fixture
def dicom(tmp_path: Path) -> bytes:
    return save(ultrasound(grey_cine()), tmp_path / "plain").read_bytes()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_only_clip_of_a_zip_opens_whatever_lies_beside_it(
    tmp_path: Path, dicom: bytes, sample_clip: Path, method: int
) -> None:
    report = (sample_clip.parent / "test-SR.dcm").read_bytes()
    directory = (sample_clip.parent / "dicomdirtests/DICOMDIR").read_bytes()
    members = {
        "README.TXT": b"read me",
        "DICOMDIR": directory,
        "STUDY/REPORT": report,
        "STUDY/Apical 10:32:05.jpg": dicom,  # names are not looked at
    }
    with open_clip(zipped(tmp_path / "zip", members, method)) as clip:
        lumas = np.array([frame.pixels_HW for frame in clip.frames])
    assert np.array_equal(lumas, grey_cine())


def test_two_clips_in_a_zip_are_ambiguous_and_a_study(tmp_path: Path, dicom: bytes) -> None:
    path = zipped(tmp_path / "zip", {"a/1": dicom, "notes": b"...", "b/1": dicom})
    assert refusal_of(path) == "ambiguous_archive"
    folder = tmp_path / "study"
    folder.mkdir()
    clips = unpack_study(path, folder)
    assert [clip.read_bytes() for clip in clips] == [dicom, dicom]
    assert sorted(folder.iterdir()) == list(clips)


@pytest.mark.parametrize("members", [{}, {"notes": b"..."}])
def test_a_zip_without_a_clip_has_no_pixels(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = zipped(tmp_path / "zip", members)
    assert refusal_of(path) == "no_pixels"
    with pytest.raises(IngestError) as refusal:
        unpack_study(path, tmp_path)
    assert refusal.value.code == "no_pixels"


def a_link(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(link, "/etc/passwd")


def a_zip(archive: zipfile.ZipFile) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as nested:
        nested.writestr("clip", b"...")
    archive.writestr("inner", inner.getvalue())


def a_bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("zeros", b"\0" * (10 << 20))


def another_method(archive: zipfile.ZipFile) -> None:
    archive.writestr("lzma", b"...", zipfile.ZIP_LZMA)


def a_member_called(name: str) -> Callable[[zipfile.ZipFile], None]:
    return lambda archive: archive.writestr(name, b"...")


@pytest.mark.parametrize(
    "add",
    [
        a_link,
        a_zip,
        a_bomb,
        another_method,
        a_member_called("../up"),
        a_member_called("/etc/passwd"),
        a_member_called("a/../../up"),
        a_member_called("C:\\windows"),
    ],
)
def test_a_zip_that_breaks_a_rule_is_unsafe_even_around_a_good_clip(
    tmp_path: Path, dicom: bytes, add: Callable[[zipfile.ZipFile], None]
) -> None:
    path = zipped(tmp_path / "zip", {"clip": dicom})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        add(archive)
    before = sorted(tmp_path.iterdir())
    assert refusal_of(path) == "unsafe_archive"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_that_are_the_same_bytes_again_are_refused(
    tmp_path: Path, dicom: bytes, method: int
) -> None:
    """D. Fifield, A better zip bomb, WOOT 2019: entries of a directory that overlap in the file."""
    path = zipped(tmp_path / "zip", {"clip": dicom}, method)
    raw = path.read_bytes()
    entry, end = raw.rfind(b"PK\1\2"), raw.rfind(b"PK\5\6")
    many = 20 * raw[entry:end]
    told = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 20, 20, len(many), entry, 0)
    path.write_bytes(raw[:entry] + many + told)
    assert refusal_of(path) == "unsafe_archive"
    folder = tmp_path / "study"
    folder.mkdir()
    with pytest.raises(IngestError) as refusal:
        unpack_study(path, folder)
    assert refusal.value.code == "unsafe_archive"
    assert not list(folder.iterdir())


def test_an_encrypted_member_is_refused(tmp_path: Path, dicom: bytes) -> None:
    path = zipped(tmp_path / "zip", {"clip": dicom})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert refusal_of(path) == "unsafe_archive"


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(
    tmp_path: Path, dicom: bytes
) -> None:
    path = zipped(tmp_path / "zip", {"clip": dicom})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, len(dicom) // 2)
    path.write_bytes(data)
    assert refusal_of(path) in ("unsafe_archive", "truncated")


def test_a_broken_member_is_refused(tmp_path: Path, dicom: bytes) -> None:
    path = zipped(tmp_path / "zip", {"clip": dicom}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[len(dicom) // 2] ^= 0xFF
    path.write_bytes(data)
    assert refusal_of(path) == "unsafe_archive"


def test_a_cut_zip_is_truncated(tmp_path: Path, dicom: bytes) -> None:
    path = zipped(tmp_path / "zip", {"clip": dicom})
    path.write_bytes(path.read_bytes()[:-30])
    assert refusal_of(path) == "truncated"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (IngestLimits(archive_members=2), "unsafe_archive"),
        (IngestLimits(archive_ratio=1), "unsafe_archive"),
        (IngestLimits(file_bytes=COUNT * 48 * 64 + 1000), "too_large"),
    ],
)
def test_each_limit_of_zips_holds(
    tmp_path: Path, dicom: bytes, limits: IngestLimits, code: str
) -> None:
    path = zipped(tmp_path / "zip", {"a": dicom, "b": b"b" * 1000, "c": b"c" * 1000})
    assert refusal_of(path, limits) == code


def test_a_directory_larger_than_any_honest_one_is_not_even_read(
    tmp_path: Path, dicom: bytes
) -> None:
    path = zipped(tmp_path / "zip", {"clip": dicom})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x05\x06") + 12, 400 << 20)
    path.write_bytes(data)
    assert refusal_of(path) == "unsafe_archive"


def many(path: Path, count: int) -> bytes:
    return zipped(path, {str(number): b"..." for number in range(count)}).read_bytes()


def behind_a_large_end(raw: bytes) -> bytes:
    """Let ZIP64 records tell of the directory, and the plain end of a small one.

    Source:
        APPNOTE 6.3.10, sections 4.3.14 (record), 4.3.15 (locator) and 4.3.16 (end).
    """
    end = raw.rfind(b"PK\5\6")
    members, length, start = struct.unpack_from("<HII", raw, end + 10)
    told = (44, 45, 45, 0, 0, members, members, length, start)
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", *told)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    return raw[:end] + record + locator + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 100, 0, 0)


def with_a_count_of_one(raw: bytes) -> bytes:
    end = raw.rfind(b"PK\5\6")
    return raw[: end + 8] + struct.pack("<HH", 1, 1) + raw[end + 12 :]


@pytest.mark.parametrize("hide", [behind_a_large_end, with_a_count_of_one])
def test_members_are_counted_whatever_an_end_of_the_zip_says(
    tmp_path: Path, hide: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "hidden"
    path.write_bytes(hide(many(tmp_path / "zip", 201)))
    assert len(zipfile.ZipFile(path).infolist()) == 201
    assert refusal_of(path) == "unsafe_archive"


def test_a_small_zip_with_a_large_end_opens(tmp_path: Path, dicom: bytes) -> None:
    path = tmp_path / "streamed"
    path.write_bytes(behind_a_large_end(zipped(tmp_path / "zip", {"a": dicom}).read_bytes()))
    with open_clip(path) as clip:
        assert len(list(clip.frames)) == COUNT


def test_a_directory_is_not_read_where_either_end_says_that_it_is_too_long(tmp_path: Path) -> None:
    raw = behind_a_large_end(many(tmp_path / "zip", 3))
    record = raw.rfind(b"PK\6\6")
    path = tmp_path / "long"
    path.write_bytes(raw[: record + 40] + struct.pack("<Q", 1 << 40) + raw[record + 48 :])
    with pytest.raises(IngestError, match="directory is too long") as refusal, open_clip(path):
        pass
    assert refusal.value.code == "unsafe_archive"


def a_name_that_is_no_text(raw: bytes) -> bytes:
    return raw.replace("é".encode(), b"\xff\xff", 1)


def a_place_beyond_any_file(raw: bytes) -> bytes:
    entry, end = raw.find(b"PK\1\2"), raw.rfind(b"PK\5\6")
    large = struct.pack("<HHQ", 1, 8, 1 << 63)
    head = raw[entry : entry + 30] + struct.pack("<H", len(large)) + raw[entry + 32 : entry + 42]
    written = head + b"\xff" * 4 + raw[entry + 46 : end] + large
    told = (0, 0, 1, 1, len(written), entry, 0)
    return raw[:entry] + written + struct.pack("<4s4H2IH", b"PK\5\6", *told)


@pytest.mark.parametrize("spoil", [a_name_that_is_no_text, a_place_beyond_any_file])
def test_a_member_that_the_directory_tells_wrong_of_is_refused(
    tmp_path: Path, dicom: bytes, spoil: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "spoilt"
    path.write_bytes(spoil(zipped(tmp_path / "zip", {"é": dicom}).read_bytes()))
    assert refusal_of(path) == "unsafe_archive"
