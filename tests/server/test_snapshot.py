"""A session goes on from its snapshot as if nothing had happened, in another process too."""

import json
import time
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest

from model import Predictor, load_predictor
from server.errors import MalformedMessageError, SnapshotError
from server.protocol import Codec, FrameHeader, Hello
from server.session import Arrival, Session
from server.snapshots import pack, unpack
from tests.server.live import CountingBackend, counting_predictor, disc

SIDE = 96
MOST_BYTES = 1 << 20


@pytest.fixture(scope="module")
def real() -> Predictor:
    """The weights that are shipped."""
    return load_predictor(threads=1)


@pytest.fixture
def counting() -> Predictor:
    return counting_predictor(CountingBackend())


def beating(seq: int) -> bytes:
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    radius = 24 + 8 * np.cos(2 * np.pi * seq / 24)
    image = np.where(np.hypot(rows - 50, cols - 48) < radius, 20, 120 + (rows * cols) % 50)
    return image.astype(np.uint8).tobytes()


def arrival(seq: int, payload: bytes, codec: Codec = "gray8") -> Arrival:
    header = FrameHeader(codec, seq, 33_333 * seq, len(payload))
    return Arrival(header, memoryview(payload), time.perf_counter())


def untimed(messages: tuple[str, ...]) -> list[dict[str, Any]]:
    said = [json.loads(message) for message in messages]
    return [{k: v for k, v in each.items() if k not in ("stages_ms", "saved_seq")} for each in said]


def test_a_session_moved_again_and_again_answers_bit_for_bit_as_one_never_moved(
    real: Predictor,
) -> None:
    hello = Hello(size=(SIDE, SIDE), region=(0, 0, SIDE, SIDE), policy="every")
    whole, moved = Session(hello, real), Session(hello, real)
    for seq in range(120):
        frame = arrival(seq, beating(seq))
        assert untimed(moved.answer(frame).messages) == untimed(whole.answer(frame).messages)
        if seq % 17 == 0:
            blob = moved.snapshot()
            assert blob is not None
            assert len(blob) < MOST_BYTES
            moved = Session.restore(blob, real, moved.token)
            # Nothing is left out: where both are alike to the bit, all that follows is.
            assert moved.snapshot() == blob
            # The record, the name and the counters moved too.
            header = FrameHeader("gray8", seq, None, 1)
            assert untimed(moved.repeat(header).messages) == untimed(whole.repeat(header).messages)
    assert moved.snapshot() is not None
    found, wanted = untimed(moved.summary()), untimed(whole.summary())
    assert found[-1].pop("session") != wanted[-1].pop("session")
    assert found == wanted


def test_after_bye_a_restored_session_says_the_same_summary_and_takes_no_frame(
    counting: Predictor,
) -> None:
    session = Session(Hello(size=(48, 48), region=(0, 0, 48, 48)), counting)
    session.answer(arrival(0, disc(0).tobytes()))
    said = session.summary()
    blob = session.snapshot()
    assert blob is not None
    again = Session.restore(blob, counting, session.token)
    assert again.summary() == said
    with pytest.raises(MalformedMessageError, match="bye"):
        again.answer(arrival(1, disc(1).tobytes()))


def test_a_session_of_other_weights_is_not_gone_on_with(
    counting: Predictor, real: Predictor
) -> None:
    blob = Session(Hello(size=(48, 48)), counting).snapshot()
    assert blob is not None
    with pytest.raises(SnapshotError, match="begun with weights 000000000000"):
        Session.restore(blob, real, "token")


def h264(pictures: int, group: int) -> list[bytes]:
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width = context.height = 48
    context.pix_fmt = "yuv420p"
    context.gop_size = group
    context.options = {"tune": "zerolatency", "preset": "ultrafast"}
    packets = []
    for seq in range(pictures):
        grey = np.ascontiguousarray(disc(seq))
        picture = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")
        picture.pts = seq
        packets += [bytes(packet) for packet in context.encode(picture)]
    return packets


def with_new_hello(parts: list[bytes]) -> list[bytes]:
    facts = json.loads(parts[0])
    facts["hello"]["zoom"] = 2
    return [json.dumps(facts).encode(), *parts[1:]]


def with_new_beats(parts: list[bytes]) -> list[bytes]:
    return [*parts[:3], json.dumps([[1, 2, 3]]).encode(), *parts[4:]]


def with_new_tracker(parts: list[bytes]) -> list[bytes]:
    tracker = json.loads(parts[2])
    tracker["tally"]["of_light"] = 1
    return [*parts[:2], json.dumps(tracker).encode(), *parts[3:]]


def with_fewer_facts(parts: list[bytes]) -> list[bytes]:
    facts = json.loads(parts[0])
    del facts["opened_s"]
    return [json.dumps(facts).encode(), *parts[1:]]


def with_fewer_parts(parts: list[bytes]) -> list[bytes]:
    return parts[:2]


@pytest.mark.parametrize(
    "change", [with_new_hello, with_new_beats, with_new_tracker, with_fewer_facts, with_fewer_parts]
)
def test_a_session_that_another_version_kept_is_refused_in_words(
    counting: Predictor, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    session = Session(Hello(size=(48, 48)), counting)
    session.answer(arrival(0, disc(0).tobytes()))
    blob = session.snapshot()
    assert blob is not None
    sha256 = counting.model.sha256
    Session.restore(blob, counting, "token")
    changed = pack(sha256, change(list(unpack(blob, sha256))))
    with pytest.raises(SnapshotError, match="by another version"):
        Session.restore(changed, counting, "token")


@pytest.mark.parametrize("cut", [1, 4, 9, 10, 11])
def test_a_video_goes_on_between_its_key_frames(counting: Predictor, cut: int) -> None:
    packets = h264(14, group=5)
    hello = Hello(size=(48, 48), region=(0, 0, 48, 48), codec="h264")
    whole = Session(hello, counting)
    moved = Session(hello, counting)
    for seq, packet in enumerate(packets):
        frame = arrival(seq, packet, "h264")
        assert untimed(moved.answer(frame).messages) == untimed(whole.answer(frame).messages)
        if seq == cut:
            blob = moved.snapshot()
            assert blob is not None
            moved = Session.restore(blob, counting, moved.token)
    assert whole.results == len(packets)


def test_a_video_without_key_frames_is_no_snapshot_of_any_length(counting: Predictor) -> None:
    session = Session(Hello(size=(48, 48), region=(0, 0, 48, 48), codec="h264"), counting)
    packets = h264(4, group=100)
    filler = b"\0\0\0\1\x0c" + b"\xff" * 60_000 + b"\x80"
    for seq, packet in enumerate(packets):
        session.answer(arrival(seq, packet + filler * 2, "h264"))
    assert session.snapshot() is None
    session.answer(arrival(99, h264(1, group=1)[0], "h264"))
    assert session.snapshot() is not None
