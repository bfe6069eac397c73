"""The wire, byte by byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Beat, EchoError
from server.errors import MalformedMessageError, UnknownMessageError
from server.protocol import (
    CODECS,
    BeatMessage,
    Bye,
    FrameHeader,
    Hello,
    parse_frame,
    parse_message,
)

GOLDEN = [
    (
        FrameHeader("jpeg", 7, 233_333, 3),
        b"\xff\xd8\xff",
        "47444b46 01 02 0000 0700000000000000 758f030000000000 03000000 00000000 ffd8ff",
    ),
    (
        FrameHeader("gray8", 0, None, 4),
        b"\x00\x01\x02\x03",
        "47444b46 01 00 0000 0000000000000000 0000000000000080 04000000 00000000 00010203",
    ),
    (
        FrameHeader("mjpeg", 2**64 - 1, -1, 1),
        b"\x2a",
        "47444b46 01 06 0000 ffffffffffffffff ffffffffffffffff 01000000 00000000 2a",
    ),
]


@pytest.mark.parametrize(("header", "payload", "golden"), GOLDEN)
def test_a_frame_is_these_bytes(header: FrameHeader, payload: bytes, golden: str) -> None:
    message = bytes.fromhex(golden)
    assert header.to_bytes() + payload == message
    parsed, body = parse_frame(message)
    assert parsed == header
    assert bytes(body) == payload


def test_the_documented_bytes_are_the_golden_bytes() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    for _, _, golden in GOLDEN:
        assert golden in page


@given(
    st.sampled_from(CODECS),
    st.integers(0, 2**64 - 1),
    st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    st.binary(min_size=1, max_size=64),
)
def test_every_header_survives_the_wire(
    codec: str, seq: int, time_us: int | None, payload: bytes
) -> None:
    header = FrameHeader(codec, seq, time_us, len(payload))  # type: ignore[arg-type]
    assert parse_frame(header.to_bytes() + payload) == (header, memoryview(payload))


@given(st.binary(max_size=80))
def test_rubbish_is_refused_and_never_crashes(rubbish: bytes) -> None:
    try:
        parse_frame(rubbish)
    except MalformedMessageError:
        return
    assert rubbish[:4] == b"GDKF"


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, 0x48), (4, 2), (5, 7), (6, 1), (24, 9), (28, 1)],
    ids=["magic", "version", "codec", "flags", "length", "reserved"],
)
def test_a_wrong_field_is_refused(offset: int, value: int) -> None:
    message = bytearray(FrameHeader("gray8", 1, 2, 4).to_bytes() + b"abcd")
    message[offset] = value
    with pytest.raises(MalformedMessageError):
        parse_frame(bytes(message))


def test_an_empty_payload_is_refused() -> None:
    with pytest.raises(MalformedMessageError):
        parse_frame(FrameHeader("gray8", 1, 2, 0).to_bytes())


def test_hello_has_defaults_for_all_but_the_size() -> None:
    hello = parse_message('{"type":"hello","size":[600,800]}')
    assert hello == Hello(size=(600, 800))
    assert (hello.codec, hello.mask_encoding, hello.policy) == ("gray8", "rle", "latest")


def test_bye_is_one_word() -> None:
    assert parse_message('{"type":"bye"}') == Bye()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", MalformedMessageError),
        ("[]", MalformedMessageError),
        ("{", MalformedMessageError),
        ('{"type":"hello"}', MalformedMessageError),
        ('{"size":[600,800]}', MalformedMessageError),
        ('{"type":"hello","size":[600,8]}', MalformedMessageError),
        ('{"type":"hello","size":["600",800]}', MalformedMessageError),
        ('{"type":"hello","size":[600,800],"colour":1}', MalformedMessageError),
        ('{"type":"hello","size":[600,800],"spacing_mm":[NaN,1]}', MalformedMessageError),
        ('{"type":"hello","size":[600,800],"spacing_mm":[0,1]}', MalformedMessageError),
        ('{"type":"hello","size":[600,800],"spacing_mm":[10,1e-310]}', MalformedMessageError),
        ('{"type":"hello","size":[600,800],"codec":"bmp"}', MalformedMessageError),
        ('{"type":"zoom"}', UnknownMessageError),
    ],
)
def test_a_bad_control_message_is_refused(text: str, error: type[EchoError]) -> None:
    with pytest.raises(error):
        parse_message(text)


def test_a_refusal_does_not_repeat_what_came() -> None:
    with pytest.raises(MalformedMessageError) as refusal:
        parse_message('{"type":"hello","size":[600,800],"view":"Mrs Smith"}')
    assert "Smith" not in refusal.value.message


def test_a_beat_is_rounded_to_what_a_reader_can_use() -> None:
    beat = Beat(0, 0, 3, 14, 100.0, 466.66667, 101.234567, None, 55.4321, 41.05, True, ())
    message = json.loads(BeatMessage.of(beat).to_json())
    assert message["type"] == "beat"
    assert message["es_time_ms"] == 466.667
    assert message["ed_volume_ml"] == 101.23
    assert message["es_volume_ml"] is None
    assert message["ef_percent"] == 55.4
