"""Compressed frames, written by foreign encoders and compared with foreign decoders."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jpeg_ls  # type: ignore[import-untyped]
import numpy as np
import openjpeg
import pydicom
import pydicom.data
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from server.ingest import Clip, IngestError, IngestLimits, open_clip
from tests.server.ingest.making import (
    COUNT,
    coloured_cine,
    grey_cine,
    luma_of,
    run,
    save,
    to_ybr,
    ultrasound,
)

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"


def read(path: Path) -> tuple[Clip, NDArray[np.uint8]]:
    with open_clip(path) as clip:
        return clip, np.array([frame.pixels_HW for frame in clip.frames])


def refusal_of(path: Path) -> str:
    with pytest.raises(IngestError) as refusal, open_clip(path) as clip:
        list(clip.frames)
    return refusal.value.code


def j2k(frame: NDArray[Any], **how: Any) -> bytes:
    return bytes(openjpeg.utils.encode_array(frame, **how))


def jls(frame: NDArray[Any]) -> bytes:
    return bytes(jpeg_ls.encode_array(frame))


def rle(frame: NDArray[Any], photometric: str) -> bytes:
    samples = 3 if frame.ndim == 3 else 1
    return get_encoder(RLELossless).encode(
        frame,
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=samples,
        photometric_interpretation=photometric,
        bits_allocated=8 * frame.dtype.itemsize,
        bits_stored=8 * frame.dtype.itemsize,
        pixel_representation=0,
        number_of_frames=1,
        planar_configuration=0,
        encoding_plugin="pydicom",
    )


LOSSLESS: list[tuple[str, str, Callable[[NDArray[Any]], bytes], str]] = [
    ("RLE", RLELossless, lambda frame: rle(frame, "MONOCHROME2"), "DICOM, RLE"),
    ("JPEG-LS", JPEGLSLossless, jls, "DICOM, JPEG-LS"),
    ("JPEG 2000", JPEG2000Lossless, j2k, "DICOM, JPEG 2000"),
]


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(("name", "syntax", "encode", "words"), LOSSLESS)
def test_lossless_grey_comes_out_exactly(
    tmp_path: Path,
    name: str,
    syntax: str,
    encode: Callable[[NDArray[Any]], bytes],
    words: str,
    bits: int,
) -> None:
    cine = grey_cine(bits=bits)
    made = ultrasound(cine, BitsStored=bits, HighBit=bits - 1)
    path = save(made, tmp_path / name, syntax, [encode(frame) for frame in cine])
    clip, lumas = read(path)
    assert np.array_equal(lumas, cine >> bits - 8)
    assert clip.encoding == words
    assert clip.warnings == ()


@pytest.mark.parametrize(
    ("option", "bits"), [("+e1", 8), ("+e1", 12), ("+el", 8), ("+el", 16), ("+e1", 16)]
)
def test_lossless_jpeg_comes_out_exactly(tmp_path: Path, option: str, bits: int) -> None:
    cine = grey_cine(bits=bits)
    native = save(ultrasound(cine, BitsStored=bits, HighBit=bits - 1), tmp_path / "native")
    run("dcmcjpeg", option, native, tmp_path / "clip")
    clip, lumas = read(tmp_path / "clip")
    assert np.array_equal(lumas, cine >> bits - 8)
    assert clip.encoding == "DICOM, JPEG Lossless"


def lossless_jpeg(frame: NDArray[Any], bits: int) -> bytes:
    """Each sample's difference from its left neighbour, its length before it (ITU-T T.81, H.1)."""
    samples = frame.astype(int)
    left = np.full_like(samples, 1 << bits - 1)
    left[1:, 0], left[:, 1:] = samples[:-1, 0], samples[:, :-1]
    code = ""
    for difference in (samples - left).ravel().tolist():
        length = abs(difference).bit_length()
        code += f"{length:05b}"
        if length:
            code += f"{difference % ((1 << length) - (difference < 0)):0{length}b}"
    code += "1" * (-len(code) % 8)
    scan = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\0")
    segments = {
        0xC3: struct.pack(">BHHB3B", bits, *frame.shape, 1, 1, 0x11, 0),
        0xC4: bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)]),  # 17 lengths, 5 bits each
        0xDA: bytes([1, 1, 0, 1, 0, 0]),
    }
    head = b"".join(struct.pack(">BBH", 255, k, len(s) + 2) + s for k, s in segments.items())
    return b"\xff\xd8" + head + scan + b"\xff\xd9" + b"\0" * (len(head + scan) % 2)


@pytest.mark.parametrize("bits", [6, 8, 12])
def test_lossless_jpeg_of_any_precision_comes_out_exactly(tmp_path: Path, bits: int) -> None:
    cine = grey_cine(bits=12) >> 12 - bits
    cine = cine.astype(np.uint8) if bits <= 8 else cine
    made = ultrasound(cine, BitsStored=bits, HighBit=bits - 1)
    frames = [lossless_jpeg(frame, bits) for frame in cine]
    path = save(made, tmp_path / "clip", JPEGLosslessSV1, frames)
    run("dcmdjpeg", path, tmp_path / "decoded")
    assert np.array_equal(pydicom.dcmread(tmp_path / "decoded").pixel_array, cine)
    expected = cine.astype(int) * 255 // 63 if bits == 6 else cine >> bits - 8
    assert np.array_equal(read(path)[1], expected)


@pytest.mark.parametrize("encoder", [("dcmcjpls", "+el"), ("dcmcjpeg", "+e1"), ("dcmcrle",)])
def test_bits_stored_at_the_top_of_the_word_are_found_where_the_word_is_compressed(
    tmp_path: Path, encoder: tuple[str, ...]
) -> None:
    cine = grey_cine(bits=12)
    made = ultrasound(cine << 4, BitsStored=12, HighBit=15)
    run(*encoder, save(made, tmp_path / "native"), tmp_path / "clip")
    assert np.array_equal(read(tmp_path / "clip")[1], cine >> 4)


@pytest.mark.parametrize(("option", "name"), [("+el", "JPEG-LS"), ("+eb", "JPEG-LS")])
def test_jpeg_ls_of_dcmtk_comes_out_as_dcmtk_decodes_it(
    tmp_path: Path, option: str, name: str
) -> None:
    native = save(ultrasound(coloured_cine(), "RGB"), tmp_path / "native")
    run("dcmcjpls", "+el" if option == "+el" else "+en", native, tmp_path / "clip")
    run("dcmdjpls", tmp_path / "clip", tmp_path / "decoded")
    expected = luma_of(pydicom.dcmread(tmp_path / "decoded").pixel_array)
    clip, lumas = read(tmp_path / "clip")
    assert np.abs(lumas - expected).max() <= 1
    assert clip.encoding == f"DICOM, {name}"
    assert clip.colour_overlay


def test_lossless_jpeg_in_colour_keeps_its_luma(tmp_path: Path) -> None:
    native = save(ultrasound(coloured_cine(), "RGB"), tmp_path / "native")
    run("dcmcjpeg", "+e1", native, tmp_path / "clip")
    clip, lumas = read(tmp_path / "clip")
    assert np.abs(lumas - luma_of(coloured_cine())).max() <= 1
    assert clip.colour_overlay


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_rle_in_colour_keeps_its_luma(tmp_path: Path, photometric: str) -> None:
    cine = coloured_cine() if photometric == "RGB" else to_ybr(coloured_cine())
    encoded = [rle(frame, photometric) for frame in cine]
    made = ultrasound(cine, photometric, PlanarConfiguration=1)
    clip, lumas = read(save(made, tmp_path / "clip", RLELossless, encoded))
    assert np.abs(lumas - luma_of(coloured_cine())).max() <= 1
    assert clip.colour_overlay


@pytest.mark.parametrize(
    ("photometric", "syntax", "how", "tolerance"),
    [
        ("YBR_RCT", JPEG2000Lossless, {"photometric_interpretation": 1}, 1),
        ("RGB", JPEG2000Lossless, {"photometric_interpretation": 1, "use_mct": False}, 1),
        ("YBR_ICT", JPEG2000, {"photometric_interpretation": 1, "compression_ratios": [3]}, 30),
    ],
)
def test_jpeg_2000_in_colour_keeps_its_luma(
    tmp_path: Path, photometric: str, syntax: str, how: dict[str, Any], tolerance: int
) -> None:
    encoded = [j2k(frame, **how) for frame in coloured_cine()]
    made = ultrasound(coloured_cine(), photometric)
    clip, lumas = read(save(made, tmp_path / "clip", syntax, encoded))
    difference = np.abs(lumas - luma_of(coloured_cine()))
    assert difference.max() <= tolerance
    assert difference.mean() <= tolerance / 10
    assert clip.colour_overlay


def test_jpeg_2000_in_a_jp2_file_is_unwrapped(tmp_path: Path) -> None:
    encoded = [j2k(frame, codec_format=1) for frame in grey_cine()]
    path = save(ultrasound(grey_cine()), tmp_path / "clip", JPEG2000Lossless, encoded)
    assert encoded[0].startswith(b"\0\0\0\x0cjP")
    assert np.array_equal(read(path)[1], grey_cine())


def htj2k(folder: Path, frame: NDArray[Any]) -> bytes:
    """One frame by OpenJPH, the block coder's own encoder."""
    highest = 255 if frame.dtype == np.uint8 else 4095
    grey, form = frame.ndim == 2, "P5" if frame.ndim == 2 else "P6"
    picture, coded = folder / ("in.pgm" if grey else "in.ppm"), folder / "out.j2c"
    head = f"{form}\n{frame.shape[1]} {frame.shape[0]}\n{highest}\n".encode()
    picture.write_bytes(head + frame.astype(">u2" if highest > 255 else "u1").tobytes())
    run("ojph_compress", "-i", picture, "-o", coded, "-reversible", "true")
    return coded.read_bytes()


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("number", [201, 202])
def test_htj2k_of_openjph_comes_out_exactly(tmp_path: Path, bits: int, number: int) -> None:
    cine = grey_cine(bits=bits)
    made = ultrasound(cine, BitsStored=bits, HighBit=bits - 1)
    frames = [htj2k(tmp_path, frame) for frame in cine]
    path = save(made, tmp_path / "clip", f"1.2.840.10008.1.2.4.{number}", frames)
    clip, lumas = read(path)
    assert np.array_equal(lumas, cine >> bits - 8)
    assert clip.encoding == "DICOM, HTJ2K"


def test_htj2k_in_colour_keeps_its_luma(tmp_path: Path) -> None:
    frames = [htj2k(tmp_path, frame) for frame in coloured_cine()]
    made = ultrasound(coloured_cine(), "YBR_RCT")
    clip, lumas = read(save(made, tmp_path / "clip", "1.2.840.10008.1.2.4.201", frames))
    assert np.abs(lumas - luma_of(coloured_cine())).max() <= 1
    assert clip.colour_overlay


def test_a_progressive_jpeg_of_endless_scans_is_refused_before_it_is_decoded(
    tmp_path: Path,
) -> None:
    how = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    frames = [cv2.imencode(".jpg", frame, how)[1].tobytes() for frame in grey_cine()]
    made = ultrasound(grey_cine())
    assert len(read(save(made, tmp_path / "clip", JPEGBaseline8Bit, frames))[1]) == COUNT
    last = frames[0].rindex(b"\xff\xda")
    frames[0] = frames[0][:-2] + frames[0][last:-2] * 1000 + frames[0][-2:]
    assert refusal_of(save(made, tmp_path / "clip", JPEGBaseline8Bit, frames)) == "decode_failed"


def dcmtk_jpeg(tmp_path: Path, made: Dataset, *options: str) -> tuple[Path, NDArray[Any]]:
    """A lossy clip by dcmcjpeg, and what dcmdjpeg makes of it, in RGB or grey."""
    native = save(made, tmp_path / "native")
    run("dcmcjpeg", *options, native, tmp_path / "clip")
    run("dcmdjpeg", "+cn" if "+cr" in options else "+ca", tmp_path / "clip", tmp_path / "decoded")
    return tmp_path / "clip", pydicom.dcmread(tmp_path / "decoded").pixel_array


@pytest.mark.parametrize(
    "options",
    [
        ("+eb", "+cy"),  # YCbCr 4:4:4 or subsampled, header YBR_FULL or YBR_FULL_422
        ("+eb", "+cy", "+s2"),
        ("+eb", "+cy", "+s4"),
        ("+eb", "+cr"),  # components are RGB, and the header says so
        ("+ee", "+cy"),
    ],
)
def test_lossy_jpeg_in_colour_has_the_luma_that_dcmtk_decodes(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    path, expected = dcmtk_jpeg(tmp_path, ultrasound(coloured_cine(), "RGB"), *options)
    clip, lumas = read(path)
    difference = np.abs(lumas - luma_of(expected))
    # clipping in RGB and smoothed chroma make a difference only at the edges of the flow box
    assert np.percentile(difference, 95) <= 3
    assert difference.mean() < 1.5
    assert clip.encoding == "DICOM, JPEG"
    assert clip.colour_overlay


def test_lossy_grey_jpeg_has_the_pixels_that_dcmtk_decodes(tmp_path: Path) -> None:
    path, expected = dcmtk_jpeg(tmp_path, ultrasound(grey_cine()), "+eb")
    clip, lumas = read(path)
    assert np.abs(lumas.astype(int) - expected).max() <= 1
    assert not clip.colour_overlay


def test_extended_jpeg_of_12_bits_has_the_pixels_that_dcmtk_decodes(tmp_path: Path) -> None:
    made = ultrasound(grey_cine(bits=12), BitsStored=12, HighBit=11)
    path, expected = dcmtk_jpeg(tmp_path, made, "+ee")
    clip, lumas = read(path)
    assert np.abs(lumas.astype(int) - (expected >> 4)).max() <= 1
    assert clip.encoding == "DICOM, JPEG, 12 bit"


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cy+s2.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_jpeg_lossy_gdcm.dcm",
        "SC_rgb_jpeg_app14_dcmd.dcm",
        "SC_jpeg_no_color_transform.dcm",
        "SC_jpeg_no_color_transform_2.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_rle_2frame.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "examples_rgb_color.dcm",
        "examples_jpeg2k.dcm",
    ],
)
def test_published_colour_files_have_the_luma_that_pydicom_decodes(name: str) -> None:
    made = pydicom.dcmread(PYDICOM_FILES / name)
    rgb = made.pixel_array
    rgb = rgb if rgb.ndim == 4 else rgb[None]
    _, lumas = read(PYDICOM_FILES / name)
    assert np.abs(lumas - luma_of(rgb)).mean() < 2.5


def test_an_rle_frame_of_the_wrong_number_of_segments_fails(tmp_path: Path) -> None:
    frames = [rle(frame, "MONOCHROME2") for frame in grey_cine()]
    frames[1] = b"\x02" + frames[1][1:]
    path = save(ultrasound(grey_cine()), tmp_path / "clip", RLELossless, frames)
    assert refusal_of(path) == "decode_failed"


@pytest.mark.parametrize("encode", [j2k, jls, lambda frame: rle(frame, "MONOCHROME2")])
def test_a_frame_of_another_size_than_the_header_says_is_refused(
    tmp_path: Path, encode: Callable[[NDArray[Any]], bytes]
) -> None:
    frames = [encode(frame[:-8]) for frame in grey_cine()]
    path = save(ultrasound(grey_cine()), tmp_path / "clip", JPEG2000Lossless, frames)
    assert refusal_of(path) in ("malformed_header", "decode_failed")


def test_rubbish_where_frames_should_be_is_refused(tmp_path: Path) -> None:
    rubbish = [bytes(range(256)) * 4] * COUNT
    path = save(ultrasound(grey_cine()), tmp_path / "clip", JPEGBaseline8Bit, rubbish)
    assert refusal_of(path) == "decode_failed"


@pytest.mark.parametrize("encode", [j2k, jls])
def test_a_broken_frame_is_refused_and_the_decoder_process_ends(
    tmp_path: Path, encode: Callable[[NDArray[Any]], bytes]
) -> None:
    frames = [encode(frame) for frame in grey_cine()]
    frames[1] = frames[1][:60] + b"\0" * 6
    path = save(ultrasound(grey_cine()), tmp_path / "clip", JPEG2000Lossless, frames)
    assert refusal_of(path) == "decode_failed"


def test_a_decoder_process_that_outgrows_its_memory_is_a_refusal(tmp_path: Path) -> None:
    frames = [j2k(frame) for frame in grey_cine()]
    path = save(ultrasound(grey_cine()), tmp_path / "clip", JPEG2000Lossless, frames)
    with (
        pytest.raises(IngestError) as refusal,
        open_clip(path, IngestLimits(decoder_bytes=30 << 20)) as clip,
    ):
        list(clip.frames)
    assert refusal.value.code in ("too_large", "decode_failed")
