"""Payloads to grey pixels, against decoders and encoders that are not ours."""

import re
import struct
import time
import zlib

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.errors import FrameSizeError, UndecodableFrameError, UnsupportedCodecError
from server.payload import PayloadDecoder
from server.protocol import CODECS, Codec
from tests.server.packets import VIDEO, encoded

ROWS, COLS = 48, 64
Pixels = NDArray[np.uint8]


def scene(shift: int = 0) -> Pixels:
    """Smooth, structured, and different in every direction."""
    rows, cols = np.mgrid[0:ROWS, 0:COLS]
    wave = np.sin(rows / 7 + shift / 3) + np.cos(cols / 11 - rows / 17)
    return (128 + 50 * wave).astype(np.uint8)


def decode(codec: Codec, payload: bytes, size: tuple[int, int] = (ROWS, COLS)) -> Pixels | None:
    return PayloadDecoder(codec, size).luma(memoryview(payload))


def png(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], size: tuple[int, int] | None = None
) -> bytes:
    """A PNG written from its specification alone (W3C PNG 3rd edition, sections 5 and 11.2)."""
    rows, cols = size or pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    colour = 2 if pixels.ndim == 3 else 0
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    lines = b"".join(b"\0" + line.tobytes() for line in big_endian)
    header = struct.pack(">IIBBBBB", cols, rows, depth, colour, 0, 0, 0)
    return png_of(header, zlib.compress(lines))


def png_of(header: bytes, packed: bytes) -> bytes:
    """A PNG of its IHDR and its deflated scanlines."""
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def bt601(rgb: Pixels) -> NDArray[np.float64]:
    """Luma of ITU-R BT.601."""
    return rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def colours() -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (ROWS, COLS, 3), np.uint8)


def test_gray8_is_its_bytes_row_by_row() -> None:
    payload = bytes(row * COLS + col & 255 for row in range(ROWS) for col in range(COLS))
    found = decode("gray8", payload)
    assert found is not None
    assert found[0, 1] == 1
    assert found[2, 3] == 2 * COLS + 3
    assert found.tobytes() == payload


def test_rgb24_becomes_luma() -> None:
    found = decode("rgb24", colours().tobytes())
    assert found is not None
    assert np.abs(found - bt601(colours())).max() <= 0.51


def ffmpeg_jpeg(payload: bytes) -> Pixels:
    """The luma plane by FFmpeg's own JPEG decoder, which shares nothing with libjpeg."""
    context = av.CodecContext.create("mjpeg", "r")
    assert isinstance(context, av.VideoCodecContext)
    plane = context.decode(av.Packet(payload))[0].planes[0]
    return np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[:ROWS, :COLS]


@pytest.mark.parametrize("sampling", [None, 0x111111, 0x211111, 0x221111])
@pytest.mark.parametrize("progressive", [0, 1])
def test_jpeg_is_decoded_as_another_decoder_does(sampling: int | None, progressive: int) -> None:
    image = scene() if sampling is None else cv2.cvtColor(scene(), cv2.COLOR_GRAY2BGR)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    if sampling is not None:
        image[:, : COLS // 2, 0] //= 2
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    payload = cv2.imencode(".jpg", image, options)[1].tobytes()
    found = decode("jpeg", payload)
    assert found is not None
    assert np.abs(found.astype(int) - ffmpeg_jpeg(payload)).max() <= 1


def test_png_is_decoded_exactly() -> None:
    found = decode("png", png(scene()))
    np.testing.assert_array_equal(found, scene())


def test_a_png_of_16_bits_keeps_its_high_byte() -> None:
    deep = scene().astype(np.uint16) * 257
    np.testing.assert_array_equal(decode("png", png(deep)), scene())


def test_a_coloured_png_becomes_luma() -> None:
    found = decode("png", png(colours()))
    assert found is not None
    # libpng cuts off where cv2 rounds.
    assert np.abs(found - bt601(colours())).max() < 1.02


@pytest.mark.parametrize(("codec", "tolerance"), [("h264", 1), ("hevc", 1), ("mjpeg", 3)])
def test_video_packets_become_pictures_one_by_one(codec: Codec, tolerance: int) -> None:
    # Video range is 16 to 235 in h264 and hevc; mjpeg has the full one.
    stored = [(16 + scene(shift).astype(float) * 219 / 255).round() for shift in range(5)]
    lumas = [each.astype(np.uint8) for each in stored]
    decoder = PayloadDecoder(codec, (ROWS, COLS))
    packets = list(encoded(codec, lumas))
    assert len(packets) == len(lumas)
    for packet, luma in zip(packets, lumas, strict=True):
        found = decoder.luma(memoryview(packet))
        full = luma.astype(float) if codec == "mjpeg" else (luma.astype(float) - 16) * 255 / 219
        assert found is not None
        assert np.abs(found - np.clip(full, 0, 255)).max() <= tolerance


@pytest.mark.parametrize(("codec", "kinds"), [("h264", {7, 8}), ("hevc", {32, 33, 34})])
def test_a_packet_of_parameter_sets_alone_is_no_picture_and_no_error(
    codec: Codec, kinds: set[int]
) -> None:
    (packet,) = encoded(codec, [scene()])
    nals = re.split(b"\0\0\0?\1", packet)[1:]
    sets, slices = b"", b""
    for nal in nals:
        kind = nal[0] & 31 if codec == "h264" else nal[0] >> 1
        if kind in kinds:
            sets += b"\0\0\0\1" + nal
        else:
            slices += b"\0\0\0\1" + nal
    assert sets
    decoder = PayloadDecoder(codec, (ROWS, COLS))
    assert decoder.luma(memoryview(sets)) is None
    alone, whole = decoder.luma(memoryview(slices)), decode(codec, packet)
    assert alone is not None
    np.testing.assert_array_equal(alone, whole)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_another_decoder_goes_on_where_parameter_sets_came_one_by_one(codec: Codec) -> None:
    first, *others, last = encoded(codec, [scene(shift) for shift in range(4)])
    units = [b"\0\0\0\1" + unit for unit in re.split(b"\0\0\0?\1", first)[1:]]
    decoder, other = PayloadDecoder(codec, (ROWS, COLS)), PayloadDecoder(codec, (ROWS, COLS))
    for packet in [*units, *others]:
        decoder.luma(memoryview(packet))
    packets = decoder.packets
    assert packets is not None
    other.catch_up(packets)
    assert other.packets == packets
    found = other.luma(memoryview(last))
    assert found is not None
    np.testing.assert_array_equal(found, decoder.luma(memoryview(last)))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_pictures_after_one_that_nobody_wants_come_out_as_they_were_encoded(codec: Codec) -> None:
    # Noise that moves: each picture tells no more than where it went.
    noise = np.random.default_rng(5).integers(16, 236, (ROWS, COLS), np.uint8)
    lumas = [np.roll(noise, 4 * shift, axis=1) for shift in range(6)]
    decoder, other = PayloadDecoder(codec, (ROWS, COLS)), PayloadDecoder(codec, (ROWS, COLS))
    for number, (packet, luma) in enumerate(zip(encoded(codec, lumas), lumas, strict=True)):
        if number in (1, 2, 4):
            decoder.skip(memoryview(packet))
            continue
        if number == 5:
            # A decoder elsewhere must see those too.
            assert decoder.packets is not None
            other.catch_up(decoder.packets)
        for each in (decoder, other)[: 2 if number == 5 else 1]:
            found = each.luma(memoryview(packet))
            assert found is not None
            assert np.abs(found - (luma.astype(float) - 16) * 255 / 219).max() <= 1


X265 = "lossless=1:bframes=0:log-level=none:rc-lookahead=0:frame-threads=1:keyint=4:min-keyint=4"


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("h264", {"qp": "0", "tune": "zerolatency", "g": "4"}),
        ("hevc", {"x265-params": f"{X265}:open-gop=0"}),
        ("hevc", {"x265-params": f"{X265}:open-gop=1"}),
    ],
)
def test_another_decoder_needs_no_more_than_what_came_since_the_last_key_frame(
    codec: Codec, options: dict[str, str]
) -> None:
    noise = np.random.default_rng(5).integers(16, 236, (ROWS, COLS), np.uint8)
    lumas = [np.roll(noise, 4 * shift, axis=1) for shift in range(11)]
    decoder, other = PayloadDecoder(codec, (ROWS, COLS)), PayloadDecoder(codec, (ROWS, COLS))
    *before, last = encoded(codec, lumas, options)
    for packet in before:
        decoder.luma(memoryview(packet))
    assert decoder.packets is not None
    assert len(decoder.packets) == 2, "of pictures 8 and 9"
    other.catch_up(decoder.packets)
    found = other.luma(memoryview(last))
    assert found is not None
    assert np.abs(found - (lumas[10].astype(float) - 16) * 255 / 219).max() <= 1


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_video_whose_pictures_come_late_is_refused_before_any_is_taken_for_another(
    codec: Codec,
) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "hevc" else {}
    packet, *_ = encoded(codec, [scene(shift) for shift in range(12)], quiet)
    with pytest.raises(UndecodableFrameError, match="B-frames"):
        decode(codec, packet)


WHOLE: dict[Codec, bytes] = {
    "gray8": scene().tobytes(),
    "rgb24": colours().tobytes(),
    "jpeg": cv2.imencode(".jpg", scene())[1].tobytes(),
    "png": png(scene()),
    **{codec: next(iter(encoded(codec, [scene()]))) for codec in VIDEO},
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(ROWS, COLS + 1), (ROWS + 1, COLS), (COLS, ROWS)])
def test_a_picture_of_another_size_is_refused(codec: Codec, size: tuple[int, int]) -> None:
    if codec in ("gray8", "rgb24") and size == (COLS, ROWS):
        return
    with pytest.raises(FrameSizeError, match=f"{size[0]}x{size[1]}"):
        decode(codec, WHOLE[codec], size)


@pytest.mark.parametrize("codec", ["gray8", "rgb24"])
@pytest.mark.parametrize("change", [-1, 1])
def test_raw_bytes_too_few_or_too_many_are_refused(codec: Codec, change: int) -> None:
    raw = WHOLE[codec]
    with pytest.raises(FrameSizeError):
        decode(codec, raw[:-1] if change < 0 else raw + b"\0")


@pytest.mark.parametrize("codec", ["jpeg", "png"])
@given(data=st.data())
def test_a_still_cut_anywhere_is_refused(codec: Codec, data: st.DataObject) -> None:
    whole = WHOLE[codec]
    length = data.draw(st.integers(1, len(whole) - 3))
    with pytest.raises(UndecodableFrameError):
        decode(codec, whole[:length])


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_video_packet_cut_short_is_refused_and_no_picture_is_made_up(
    codec: Codec, share: float
) -> None:
    noise = np.random.default_rng(5).integers(16, 236, (ROWS, COLS), np.uint8)
    first, second, *_ = encoded(codec, [np.roll(noise, 4 * shift, axis=1) for shift in range(4)])
    decoder = PayloadDecoder(codec, (ROWS, COLS))
    assert decoder.luma(memoryview(first)) is not None
    with pytest.raises(UndecodableFrameError):
        decoder.luma(memoryview(second[: int(share * len(second))]))


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264", "hevc", "mjpeg"])
@given(data=st.data())
def test_damage_gives_a_picture_or_a_refusal_and_never_anything_else(
    codec: Codec, data: st.DataObject
) -> None:
    damaged = bytearray(WHOLE[codec])
    places = st.integers(0, len(damaged) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=6)):
        damaged[place] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(codec, bytes(damaged))
    except (UndecodableFrameError, FrameSizeError):
        return
    assert found is None or found.shape == (ROWS, COLS)


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264", "hevc", "mjpeg"])
@given(rubbish=st.binary(min_size=1, max_size=200))
def test_rubbish_is_refused(codec: Codec, rubbish: bytes) -> None:
    try:
        found = decode(codec, rubbish)
    except UndecodableFrameError:
        return
    assert found is None


def test_a_png_of_its_first_and_last_bytes_alone_is_refused() -> None:
    whole = WHOLE["png"]
    with pytest.raises(UndecodableFrameError):
        decode("png", whole[:8] + whole[-8:])


@given(place=st.integers(0, len(WHOLE["png"]) - 1), flip=st.integers(1, 255))
def test_a_png_with_any_byte_damaged_is_refused(place: int, flip: int) -> None:
    # CRC-32 finds every burst of up to 32 bits.
    damaged = bytearray(WHOLE["png"])
    damaged[place] ^= flip
    with pytest.raises(UndecodableFrameError):
        decode("png", bytes(damaged))


def test_what_a_png_holds_beside_its_picture_is_left_alone() -> None:
    whole, body = WHOLE["png"], b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    turned = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    np.testing.assert_array_equal(decode("png", whole[:33] + turned + whole[33:]), scene())


def test_a_video_picture_far_larger_than_hello_said_is_refused_before_it_is_made() -> None:
    with pytest.raises((UndecodableFrameError, FrameSizeError)):
        decode("mjpeg", WHOLE["jpeg"].replace(size_in_jpeg(ROWS, COLS), size_in_jpeg(16000, 16000)))


def size_in_jpeg(rows: int, columns: int) -> bytes:
    """Rows and columns as in a JPEG's frame header (ITU-T T.81, B.2.2)."""
    return struct.pack(">HH", rows, columns)


def test_the_picture_of_a_codec_that_is_not_there_is_refused_at_hello(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.payload._VIDEO", {"hevc": "a codec that nobody has"})
    with pytest.raises(UnsupportedCodecError, match="hevc"):
        PayloadDecoder("hevc", (ROWS, COLS))


def test_a_png_that_unpacks_to_more_than_its_picture_is_refused_at_once() -> None:
    """Of 400 KB come 400 MB, which took 1.3 s to unpack."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    header = struct.pack(">IIBBBBB", COLS, ROWS, 8, 0, 0, 0, 0)
    start_s = time.process_time()
    with pytest.raises(UndecodableFrameError, match="more than its picture"):
        decode("png", png_of(header, packed))
    assert time.process_time() - start_s < 0.3


@pytest.mark.parametrize(("rows", "columns"), [(ROWS, COLS), (16, 16), (17, 19)])
@pytest.mark.parametrize("depth", [1, 8])
def test_an_interlaced_png_is_decoded(rows: int, columns: int, depth: int) -> None:
    """Adam7 of the PNG specification (third edition), section 8.1."""
    pixels_HW = 255 * (scene()[:rows, :columns] > 128).astype(np.uint8)
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    lines = b"".join(
        b"\0" + (np.packbits(line > 0) if depth == 1 else line).tobytes()
        for top, left, down, right in passes
        for line in pixels_HW[top::down, left::right]
    )
    header = struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 1)
    found = decode("png", png_of(header, zlib.compress(lines)), (rows, columns))
    np.testing.assert_array_equal(found, pixels_HW)


@pytest.mark.parametrize("ending", ["jpeg", "png"])
def test_a_grey_still_has_no_colours_and_a_coloured_one_those_of_its_picture(
    ending: Codec,
) -> None:
    decoder = PayloadDecoder(ending, (ROWS, COLS))
    assert decoder.colours(memoryview(cv2.imencode(f".{ending}", scene())[1].tobytes())) is None
    halves = np.zeros((ROWS, COLS, 3), np.uint8)
    halves[:, : COLS // 2], halves[:, COLS // 2 :] = (200, 40, 10), (10, 80, 220)
    payload = cv2.imencode(f".{ending}", halves[:, :, ::-1])[1].tobytes()
    found = decoder.colours(memoryview(payload))
    assert found is not None
    assert found.shape == (-(-ROWS // 4), -(-COLS // 4), 3)
    edge = COLS // 8
    np.testing.assert_allclose(found[:, : edge - 2], halves[::4, : 4 * (edge - 2) : 4], atol=6)
    np.testing.assert_allclose(found[:, edge + 2 :], halves[::4, 4 * (edge + 2) :: 4], atol=6)
