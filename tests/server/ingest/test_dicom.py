"""Native frames of every layout, against the numbers they were made of."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from server.ingest import Clip, IngestError, IngestLimits, open_clip
from tests.server.ingest.making import (
    COLUMNS,
    COUNT,
    ROWS,
    coloured_cine,
    grey_cine,
    luma_of,
    save,
    to_ybr,
    ultrasound,
)


def read(path: Path) -> tuple[Clip, NDArray[np.uint8]]:
    with open_clip(path) as clip:
        return clip, np.array([frame.pixels_HW for frame in clip.frames])


def refusal_of(path: Path, limits: IngestLimits | None = None) -> str:
    with pytest.raises(IngestError) as refusal, open_clip(path, limits) as clip:
        list(clip.frames)
    return refusal.value.code


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian],
)
def test_grey_frames_come_out_as_they_are(tmp_path: Path, syntax: str) -> None:
    clip, lumas = read(save(ultrasound(grey_cine()), tmp_path / "clip", syntax))
    assert np.array_equal(lumas, grey_cine())
    assert clip.encoding == "DICOM, uncompressed"
    assert clip.warnings == ()
    assert not clip.colour_overlay


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_big_endian_bytes_are_bytes_and_its_words_are_swapped(tmp_path: Path, vr: str) -> None:
    made = ultrasound(grey_cine())
    if vr == "OW":
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    made["PixelData"].VR = vr
    _, lumas = read(save(made, tmp_path / "clip", ExplicitVRBigEndian))
    assert np.array_equal(lumas, grey_cine())


def test_big_endian_words_that_two_frames_share_are_swapped_as_pydicom_swaps_them(
    tmp_path: Path,
) -> None:
    cine = grey_cine()[:, :47, :63]
    words = np.frombuffer(cine.tobytes() + b"\0", "<u2").astype(">u2")
    made = ultrasound(cine, PixelData=words.tobytes())
    made["PixelData"].VR = "OW"
    path = save(made, tmp_path / "clip", ExplicitVRBigEndian)
    assert np.array_equal(pixel_array(path), cine)
    assert np.array_equal(read(path)[1], cine)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_12_bits_in_16_keep_their_8_highest(tmp_path: Path, order: str) -> None:
    cine = grey_cine(bits=12)
    made = ultrasound(cine.astype(order), BitsStored=12, HighBit=11)
    made["PixelData"].VR = "OW"
    syntax = ExplicitVRLittleEndian if order == "<u2" else ExplicitVRBigEndian
    _, lumas = read(save(made, tmp_path / "clip", syntax))
    assert np.array_equal(lumas, cine >> 4)


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_bytes_that_were_written_as_words_are_shown_as_bytes(
    tmp_path: Path, kind: type[np.uint16 | np.int16], photometric: str
) -> None:
    cine = grey_cine()
    more = {"PixelRepresentation": int(kind is np.int16)}
    _, lumas = read(save(ultrasound(cine.astype(kind), photometric, **more), tmp_path / "clip"))
    assert np.array_equal(lumas, cine if photometric == "MONOCHROME2" else 255 - cine)


def test_12_bits_are_no_bytes_where_only_the_first_picture_is_dim(tmp_path: Path) -> None:
    cine = grey_cine(bits=12)
    cine[0] //= 20
    assert 64 <= cine[0].max() < 256
    made = ultrasound(cine, BitsStored=12, HighBit=11)
    _, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, cine >> 4)


def test_bytes_in_words_are_bytes_where_the_first_picture_is_black(tmp_path: Path) -> None:
    cine = grey_cine()
    cine[0] = 0
    _, lumas = read(save(ultrasound(cine.astype(np.uint16)), tmp_path / "clip"))
    assert np.array_equal(lumas, cine)


def test_bits_above_those_stored_are_ignored(tmp_path: Path) -> None:
    cine = grey_cine(bits=12)
    made = ultrasound(cine | 0xF000, BitsStored=12, HighBit=11)
    _, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, cine >> 4)


def test_bits_stored_at_the_top_of_the_word_are_found(tmp_path: Path) -> None:
    cine = grey_cine(bits=12)
    made = ultrasound(cine << 4, BitsStored=12, HighBit=15)
    _, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, cine >> 4)


def test_signed_samples_are_lifted_so_that_the_lowest_is_black(tmp_path: Path) -> None:
    cine = grey_cine()
    made = ultrasound((cine.astype(np.int16) - 128).astype(np.int8), PixelRepresentation=1)
    _, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, cine)


def test_monochrome1_is_turned_round(tmp_path: Path) -> None:
    _, lumas = read(save(ultrasound(grey_cine(), "MONOCHROME1"), tmp_path / "clip"))
    assert np.array_equal(lumas, 255 - grey_cine())


def planar(frames: NDArray[Any]) -> bytes:
    return frames.transpose(0, 3, 1, 2).tobytes()


@pytest.mark.parametrize("is_planar", [False, True])
def test_rgb_becomes_luma_and_its_colours_are_seen(tmp_path: Path, is_planar: bool) -> None:
    made = ultrasound(coloured_cine(), "RGB", PlanarConfiguration=int(is_planar))
    if is_planar:
        made.PixelData = planar(coloured_cine())
    clip, lumas = read(save(made, tmp_path / "clip"))
    assert np.abs(lumas - luma_of(coloured_cine())).max() <= 1
    assert clip.colour_overlay


def test_grey_stored_as_rgb_is_no_colour(tmp_path: Path) -> None:
    grey = np.repeat(grey_cine()[..., None], 3, axis=3)
    clip, lumas = read(save(ultrasound(grey, "RGB"), tmp_path / "clip"))
    assert np.array_equal(lumas, grey_cine())
    assert not clip.colour_overlay


@pytest.mark.parametrize("is_planar", [False, True])
def test_ybr_full_gives_its_first_component(tmp_path: Path, is_planar: bool) -> None:
    ybr = to_ybr(coloured_cine())
    made = ultrasound(ybr, "YBR_FULL", PlanarConfiguration=int(is_planar))
    if is_planar:
        made.PixelData = planar(ybr)
    clip, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, ybr[..., 0])
    assert clip.colour_overlay


def subsampled(ybr: NDArray[np.uint8]) -> bytes:
    """Two pixels in four bytes: Y1 Y2 Cb Cr (PS3.3 C.7.6.3.1.2)."""
    pairs = np.stack(
        [ybr[:, :, ::2, 0], ybr[:, :, 1::2, 0], ybr[:, :, ::2, 1], ybr[:, :, ::2, 2]], axis=3
    )
    return pairs.tobytes()


def test_native_422_holds_two_bytes_a_pixel(tmp_path: Path) -> None:
    ybr = to_ybr(coloured_cine())
    made = ultrasound(ybr, "YBR_FULL_422", PixelData=subsampled(ybr))
    made["PixelData"].VR = "OB"
    clip, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, ybr[..., 0])
    assert clip.frame_count == COUNT
    assert clip.colour_overlay


def test_native_422_that_holds_three_bytes_a_pixel_is_read_all_the_same(tmp_path: Path) -> None:
    ybr = to_ybr(coloured_cine())
    clip, lumas = read(save(ultrasound(ybr, "YBR_FULL_422"), tmp_path / "clip"))
    assert np.array_equal(lumas, ybr[..., 0])
    assert clip.frame_count == COUNT
    assert clip.warnings == ("chroma_not_subsampled",)


def test_ybr_that_calls_itself_rgb_is_read_as_ybr(tmp_path: Path) -> None:
    ybr = to_ybr(np.repeat(grey_cine()[..., None], 3, axis=3))
    clip, lumas = read(save(ultrasound(ybr, "RGB"), tmp_path / "clip"))
    assert np.array_equal(lumas, ybr[..., 0])
    assert not clip.colour_overlay


def test_rgb_that_calls_itself_ybr_is_read_as_rgb(tmp_path: Path) -> None:
    rgb = np.repeat(grey_cine()[..., None], 3, axis=3)
    clip, lumas = read(save(ultrasound(rgb, "YBR_FULL"), tmp_path / "clip"))
    assert np.array_equal(lumas, grey_cine())
    assert not clip.colour_overlay


def test_one_colour_frame_among_many_is_not_missed(tmp_path: Path) -> None:
    rgb = np.repeat(grey_cine(20)[..., None], 3, axis=3)
    rgb[8:17] = coloured_cine(20)[8:17]
    clip, _ = read(save(ultrasound(rgb, "RGB"), tmp_path / "clip"))
    assert clip.colour_overlay


def test_a_file_without_preamble_and_meta_is_read(tmp_path: Path) -> None:
    _, lumas = read(save(ultrasound(grey_cine()), tmp_path / "clip", has_meta=False))
    assert np.array_equal(lumas, grey_cine())


def test_a_transfer_syntax_that_lies_about_the_data_set_is_overruled(tmp_path: Path) -> None:
    path = save(ultrasound(grey_cine()), tmp_path / "clip", ExplicitVRLittleEndian)
    explicit, implicit = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"
    path.write_bytes(path.read_bytes().replace(explicit, implicit, 1))
    _, lumas = read(path)
    assert np.array_equal(lumas, grey_cine())


def test_a_missing_frame_count_is_inferred_from_the_length(tmp_path: Path) -> None:
    clip, lumas = read(save(ultrasound(grey_cine(), NumberOfFrames=None), tmp_path / "clip"))
    assert np.array_equal(lumas, grey_cine())
    assert clip.warnings == ("frame_count_missing",)
    assert clip.time_base.duration_ms == COUNT * 40


@pytest.mark.parametrize(
    ("declared", "found", "warning"), [(2, 2, "extra_pixel_data"), (5, 3, "truncated_frames")]
)
def test_a_wrong_frame_count_gives_whole_frames_and_a_warning(
    tmp_path: Path, declared: int, found: int, warning: str
) -> None:
    clip, lumas = read(save(ultrasound(grey_cine(), NumberOfFrames=declared), tmp_path / "clip"))
    assert np.array_equal(lumas, grey_cine()[:found])
    assert clip.frame_count == found
    assert clip.warnings == (warning,)


def test_a_cut_file_gives_its_whole_frames_and_never_fills_one_up(tmp_path: Path) -> None:
    path = save(ultrasound(grey_cine()), tmp_path / "clip")
    path.write_bytes(path.read_bytes()[:-1])
    clip, lumas = read(path)
    assert np.array_equal(lumas, grey_cine()[:2])
    assert clip.warnings == ("truncated_frames",)


def test_a_file_cut_inside_its_first_frame_is_truncated(tmp_path: Path) -> None:
    path = save(ultrasound(grey_cine()), tmp_path / "clip")
    path.write_bytes(path.read_bytes()[: -ROWS * COLUMNS * COUNT + 10])
    assert refusal_of(path) == "truncated"


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Modality": "CT"}, "unsupported_modality"),
        ({"Modality": "IVUS"}, "unsupported_modality"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.2"}, "unsupported_object"),
        ({"Rows": None}, "malformed_header"),
        ({"BitsAllocated": None}, "malformed_header"),
        ({"Rows": 9000}, "too_large"),
        ({"Rows": 8}, "unsupported_pixels"),
        ({"BitsAllocated": 32}, "unsupported_pixels"),
        ({"BitsStored": 9}, "unsupported_pixels"),
        ({"SamplesPerPixel": 3}, "malformed_header"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported_pixels"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "malformed_header"),
        ({"NumberOfFrames": 1_000_000}, "too_many_frames"),
        ({"PixelData": None}, "no_pixels"),
    ],
)
def test_a_header_that_is_not_ours_is_refused_by_its_reason(
    tmp_path: Path, attributes: dict[str, Any], code: str
) -> None:
    assert refusal_of(save(ultrasound(grey_cine(), **attributes), tmp_path / "clip")) == code


@pytest.mark.parametrize("modality", ["", "OT", "EC", "US"])
def test_secondary_captures_are_taken_without_calibration(tmp_path: Path, modality: str) -> None:
    made = ultrasound(
        coloured_cine(),
        "RGB",
        Modality=modality,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7.4",
        FrameTime=None,
    )
    clip, lumas = read(save(made, tmp_path / "clip"))
    assert len(lumas) == COUNT
    assert clip.spacing_mm is None
    assert clip.time_base.source is None


def test_odd_422_columns_are_refused(tmp_path: Path) -> None:
    made = ultrasound(grey_cine(), "YBR_FULL_422", SamplesPerPixel=3, Columns=63)
    assert refusal_of(save(made, tmp_path / "clip")) == "malformed_header"


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.112", "JPEG XL"),
        ("1.2.840.10008.1.2.4.94", "JPIP Referenced"),
        ("1.2.840.10008.1.2.4.92", "JPEG 2000 Multi-component"),
        ("1.2.840.113619.5.2", "private or unknown"),
    ],
)
def test_an_encoding_that_is_not_read_is_refused_by_its_name(
    tmp_path: Path, uid: str, words: str
) -> None:
    written = "1.2.840.10008.1.2.4.100"  # pydicom does not write what it does not know
    path = save(ultrasound(grey_cine()), tmp_path / "clip", written, [b"\0\0"] * COUNT)
    path.write_bytes(path.read_bytes().replace(written.encode(), uid.ljust(23, "\0").encode(), 1))
    with pytest.raises(IngestError, match=words) as refusal, open_clip(path):
        pass
    assert refusal.value.code == "unsupported_transfer_syntax"


def test_a_deflated_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    made = ultrasound(np.zeros((40, 256, 256), np.uint8))
    path = save(made, tmp_path / "clip", DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 20_000
    assert refusal_of(path, IngestLimits(file_bytes=1 << 20)) == "too_large"


@pytest.mark.parametrize("padding", [b"", b"\0"])
@pytest.mark.parametrize("over_bytes", [100, 4096])
def test_a_deflated_clip_is_whole_whatever_it_is_unpacked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: bytes, over_bytes: int
) -> None:
    made = ultrasound(np.zeros((4, 64, 64), np.uint8))
    plain = save(made, tmp_path / "plain", ExplicitVRLittleEndian)
    path = save(made, tmp_path / "clip", DeflatedExplicitVRLittleEndian)
    starts = [132 + 12 + dcmread(p).file_meta.FileMetaInformationGroupLength for p in (plain, path)]
    data_set = plain.read_bytes()[starts[0] :]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(data_set) + deflater.flush() + padding
    path.write_bytes(path.read_bytes()[: starts[1]] + deflated)
    # 100 zeros are a part of one match, whose code was read with the bytes before.
    chunk_bytes = len(data_set) - over_bytes
    monkeypatch.setattr("server.ingest.dataset._CHUNK_BYTES", chunk_bytes)
    with open_clip(path) as clip:
        assert len(list(clip.frames)) == 4
    assert clip.warnings == ()


def test_vendor_movies_are_refused_by_their_group(tmp_path: Path) -> None:
    made = ultrasound(grey_cine(), PixelData=None)
    block = made.private_block(0x7FE1, "GEMS_Ultrasound_MovieGroup_001", create=True)
    block.add_new(0x01, "UN", b"movie")
    path = save(made, tmp_path / "clip")
    with pytest.raises(IngestError, match="7FE1") as refusal, open_clip(path):
        pass
    assert refusal.value.code == "unsupported_object"


def test_no_refusal_repeats_the_patient(tmp_path: Path) -> None:
    path = save(ultrasound(grey_cine(), Modality="MODALITY"), tmp_path / "DOE JANE")
    path.write_bytes(path.read_bytes().replace(b"MODALITY", b"DOE^JANE"))
    with pytest.raises(IngestError) as refusal, open_clip(path):
        pass
    assert "DOE" not in refusal.value.message


def nested(depth: int) -> Dataset:
    item = Dataset()
    if depth:
        item.ViewCodeSequence = [nested(depth - 1)]
    return item


def test_sequences_that_nest_too_deep_are_refused(tmp_path: Path) -> None:
    made = ultrasound(grey_cine())
    made.AcquisitionContextSequence = [nested(40)]
    path = save(made, tmp_path / "clip")
    data = path.read_bytes()
    with open_clip(path) as clip:  # stepped over as a whole
        assert clip.frame_count == COUNT
    made = ultrasound(grey_cine())
    made.ViewCodeSequence = [nested(40)]
    assert refusal_of(save(made, tmp_path / "clip")) == "malformed_header"
    assert len(data) > 0
