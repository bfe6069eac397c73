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
        "STUDY/IM0001.jpg": dicom,  # names are not looked at
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
