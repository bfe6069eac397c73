import json

import numpy as np
import pytest

from gdkvm_client import BadAnswerError, ContourMask, Frame, Hello, InputError, PngMask, Result
from gdkvm_client.masks import parse_mask
from gdkvm_client.messages import parse_message
from server.protocol import parse_frame
from server.protocol import parse_message as parse_on_the_server
from tests.clients.conftest import ScriptedServer


@pytest.mark.parametrize(
    ("frame", "codec", "expected"),
    [
        (
            Frame(7, 233_333, bytes.fromhex("ffd8ff")),
            "jpeg",
            "47444b46 01 02 0000 0700000000000000 758f030000000000 03000000 00000000 ffd8ff",
        ),
        (
            Frame(0, None, bytes([0, 1, 2, 3])),
            "gray8",
            "47444b46 01 00 0000 0000000000000000 0000000000000080 04000000 00000000 00010203",
        ),
        (
            Frame(2**64 - 1, -1, b"\x2a"),
            "mjpeg",
            "47444b46 01 06 0000 ffffffffffffffff ffffffffffffffff 01000000 00000000 2a",
        ),
    ],
)
def test_frames_are_written_as_the_protocol_says(frame: Frame, codec: str, expected: str) -> None:
    message = frame.to_bytes(codec)  # type: ignore[arg-type]
    assert message == bytes.fromhex(expected)
    header, payload = parse_frame(message)
    assert (header.seq, header.time_us, header.codec) == (frame.seq, frame.time_us, codec)
    assert bytes(payload) == frame.payload


def test_hello_is_what_the_server_wants() -> None:
    hello = Hello(
        (600, 800), "jpeg", "A4C", (0.3, 0.4), 29.97, (10, 20, 500, 600), "contour", "latest", "m"
    )
    read = parse_on_the_server(hello.to_json("token"))
    assert read.model_dump(exclude={"type"}) == {
        "size": (600, 800),
        "codec": "jpeg",
        "view": "A4C",
        "spacing_mm": (0.3, 0.4),
        "fps": 29.97,
        "region": (10, 20, 500, 600),
        "mask_encoding": "contour",
        "policy": "latest",
        "model": "m",
        "resume": "token",
    }


def test_only_a_grey_image_becomes_a_gray8_frame() -> None:
    with pytest.raises(InputError, match="uint8"):
        Frame.of_pixels(0, None, np.zeros((4, 4)))  # type: ignore[arg-type]
    assert Frame.of_pixels(0, None, np.arange(6, dtype=np.uint8).reshape(2, 3).T).payload == bytes(
        [0, 3, 1, 4, 2, 5]
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"type": "result"}',
        '{"kind": "ready"}',
        '{"type": "summary", "beats": 3}',
        '{"type": "dropped", "seq": 3, "time_us": null}',
    ],
)
def test_what_is_not_of_the_protocol_is_refused(text: str) -> None:
    with pytest.raises(BadAnswerError):
        parse_message(text)


def test_types_and_fields_of_a_newer_server_are_passed_over() -> None:
    assert parse_message('{"type": "weather", "sky": "blue"}') is None
    text = json.dumps({"type": "dropped", "seq": 3, "time_us": None, "reason": "new", "more": 1})
    found = parse_message(text)
    assert found is not None
    assert not isinstance(found, Result)


def test_what_an_older_server_does_not_say_is_unknown() -> None:
    message = json.loads(ScriptedServer().result(2**64 - 1, None, (2, 3)))
    del message["saved_seq"]
    found = parse_message(json.dumps(message))
    assert isinstance(found, Result)
    assert (found.seq, found.saved_seq) == (2**64 - 1, None)


def test_run_lengths_that_do_not_fill_the_frame_are_refused() -> None:
    with pytest.raises(BadAnswerError):
        parse_mask({"encoding": "rle", "size": [2, 3], "counts": {"lv": [1, 4]}})


def test_a_mask_of_an_encoding_of_a_newer_server_is_refused() -> None:
    with pytest.raises(BadAnswerError):
        parse_mask({"encoding": "svg", "size": [2, 3]})


def test_png_and_contours_are_decoded() -> None:
    png = parse_mask({"encoding": "png", "size": [2, 3], "png": "aGVhcnQ="})
    assert png == PngMask((2, 3), b"heart")
    line = [[0.5, 1.0], [1.5, 2.0], [0.5, 1.0]]
    contour = parse_mask({"encoding": "contour", "size": [2, 3], "contours": {"lv": [line]}})
    assert isinstance(contour, ContourMask)
    np.testing.assert_array_equal(contour.contours["lv"][0], line)
