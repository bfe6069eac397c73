"""Broken files: each one opens or is refused with a code, and nothing is left behind."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import openjpeg
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from server.ingest import IngestError, IngestLimits, open_clip
from tests.server.ingest.making import grey_cine, save, ultrasound

CASES = 300
LIMITS = IngestLimits(
    file_bytes=32 << 20, frames=200, frame_pixels=1 << 20, decoded_bytes=64 << 20, decode_s=20
)


def is_answered(path: Path) -> bool:
    """Whether a file gives frames or an IngestError; anything else fails the test by itself."""
    try:
        with open_clip(path, LIMITS) as clip:
            for frame in clip.frames:
                assert frame.pixels_HW.shape == clip.size
    except IngestError as refusal:
        return refusal.code != IngestError.code and bool(refusal.message)
    return True


def flip_a_bit(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_in_the_header(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(min(len(data), 3000))] ^= 1 << rng.randrange(8)


def overwrite_a_number(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) - 4)
    data[at : at + 4] = rng.choice([b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\1\0\0\0"])


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def take_out(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 300)]


def repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randrange(1, 300)]


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    flip_a_bit, flip_in_the_header, overwrite_a_number, cut, take_out, repeat,
]  # fmt: skip


def sources(folder: Path, sample_clip: Path) -> list[bytes]:
    """Small files of the kinds that are decoded in this process, and a zip."""
    made = [save(ultrasound(grey_cine()), folder / "native", ExplicitVRLittleEndian)]
    sample = pydicom.dcmread(sample_clip)
    made.append(save(sample, folder / "jpeg", JPEGBaseline8Bit))
    palette = ultrasound(grey_cine(), "PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(palette, f"{colour}PaletteColorLookupTableData", bytes(range(256)))
    frames = [b"\x01\0\0\0\x40" + b"\0" * 59 + b"\x81\x40" * 30] * 3
    made.append(save(palette, folder / "rle", RLELossless, frames))
    with zipfile.ZipFile(folder / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(made[0], "clip")
    return [path.read_bytes() for path in [*made, folder / "zip"]]


def test_300_broken_files_are_each_answered(tmp_path: Path, sample_clip: Path) -> None:
    rng = random.Random(20240229)
    folder = tmp_path / "sources"
    folder.mkdir()
    whole = sources(folder, sample_clip)
    path = tmp_path / "case"
    for case in range(CASES):
        data = bytearray(whole[case % len(whole)])
        for _ in range(rng.randrange(1, 4)):
            if len(data) > 10:
                rng.choice(MUTATIONS)(data, rng)
        path.write_bytes(data)
        assert is_answered(path), case
    assert sorted(tmp_path.iterdir()) == [path, folder]


def test_the_sample_clip_cut_at_every_kibibyte_is_answered(
    tmp_path: Path, sample_clip: Path
) -> None:
    data = sample_clip.read_bytes()
    path = tmp_path / "case"
    for length in range(1024, len(data), 1024):
        path.write_bytes(data[:length])
        assert is_answered(path), length


@pytest.mark.parametrize("kind", ["jpeg 2000", "film"])
def test_broken_files_for_the_decoder_process_are_each_answered(
    tmp_path: Path, shared_dir: Path, kind: str
) -> None:
    if kind == "film":
        film = shared_dir / "data/ultrasound/itkpocus/clarius-ocular-short.mp4"
        data = film.read_bytes()[:200_000]
    else:
        frames = [bytes(openjpeg.utils.encode_array(frame)) for frame in grey_cine()]
        made = ultrasound(grey_cine())
        saved = save(made, tmp_path / "whole", "1.2.840.10008.1.2.4.90", encapsulate(frames))
        data = saved.read_bytes()
    rng = random.Random(5)
    path = tmp_path / "case"
    for case in range(8):
        broken = bytearray(data)
        rng.choice(MUTATIONS)(broken, rng)
        path.write_bytes(broken)
        assert is_answered(path), case
