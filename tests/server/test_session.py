"""One client's life: answers, their record, beats, and the summary."""

import itertools
import json
import time
from typing import Any

import numpy as np
import pytest

from model import STRUCTURES, Mask, Predictor, Quality, Reading, Ventricle
from server.answers import ANSWERS_KEPT, Answer
from server.errors import UnsupportedCodecError
from server.protocol import BeatMessage, FrameHeader, Hello, Result, Summary
from server.session import Arrival, Session
from tests.server.live import (
    SIDE,
    CountingBackend,
    beating,
    counting_predictor,
    disc,
    expected_labels,
    labels_of,
)

REGION = (0, 0, SIDE, SIDE)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return counting_predictor(CountingBackend())


def new_session(predictor: Predictor, **hello: Any) -> Session:
    return Session(Hello(**{"size": (SIDE, SIDE), "region": REGION, **hello}), predictor)


def arrival(seq: int) -> Arrival:
    message = beating(seq)
    header = FrameHeader("gray8", seq, 33_333 * seq, SIDE * SIDE)
    return Arrival(header, memoryview(message)[32:], time.perf_counter())


def result_of(answer: Answer) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(answer.messages[0])
    assert result["type"] == "result"
    return result


def test_every_answer_is_of_the_documented_shape(predictor: Predictor) -> None:
    session = new_session(predictor, spacing_mm=(0.5, 0.5))
    for seq in range(30):
        messages = session.answer(arrival(seq)).messages
        result = Result.model_validate_json(messages[0])
        assert result.to_json() == messages[0]
        assert (result.seq, result.time_us) == (seq, 33_333 * seq)
        for beat in messages[1:]:
            BeatMessage.model_validate_json(beat)
    Summary.model_validate_json(session.summary()[-1])


def test_masks_follow_the_frames_before(predictor: Predictor) -> None:
    session = new_session(predictor)
    for seq in range(6):
        found = labels_of(result_of(session.answer(arrival(seq)))["mask"])
        np.testing.assert_array_equal(found, expected_labels([disc(n) for n in range(seq + 1)]))


def test_a_disc_of_known_size_has_its_area(predictor: Predictor) -> None:
    session = new_session(predictor, spacing_mm=(0.5, 0.5))
    for seq in (0, 8, 16, 24):
        result = result_of(session.answer(arrival(seq)))
    # The disc of frame 0 has a radius of 16 px, here of 8 mm.
    assert result["areas_px"]["lv"] == pytest.approx(np.pi * 16**2, rel=0.02)
    assert result["lv"]["area_px"] == pytest.approx(np.pi * 16**2, rel=0.02)
    assert result["lv"]["area_cm2"] == pytest.approx(np.pi * 0.8**2, rel=0.02)


@pytest.mark.parametrize("spacing_mm", [(0.001, 0.001), (10.0, 0.001), (0.001, 10.0), (10.0, 10.0)])
def test_a_frame_of_the_smallest_and_largest_pixels_is_answered(
    predictor: Predictor, spacing_mm: tuple[float, float]
) -> None:
    session = new_session(predictor, spacing_mm=spacing_mm)
    for seq in range(4):
        lv = result_of(session.answer(arrival(seq)))["lv"]
        if lv is not None:
            assert all(value is not None for value in lv.values())


def test_without_spacing_there_are_pixels_and_no_lengths(predictor: Predictor) -> None:
    session = new_session(predictor)
    session.answer(arrival(0))
    lv = result_of(session.answer(arrival(8)))["lv"]
    assert lv["area_px"] > 0
    assert (lv["area_cm2"], lv["length_cm"], lv["volume_ml"]) == (None, None, None)


def test_two_sessions_of_one_network_share_nothing(predictor: Predictor) -> None:
    one, other = new_session(predictor), new_session(predictor)
    for seq in range(4):
        one.answer(arrival(seq))
    assert result_of(other.answer(arrival(0)))["areas_px"]["atrium"] == 1
    assert result_of(one.answer(arrival(4)))["areas_px"]["atrium"] == 5
    assert len({one.token, other.token}) == len({one.name, other.name}) == 2


def test_tokens_are_long_and_no_part_of_the_public_name(predictor: Predictor) -> None:
    session = new_session(predictor)
    assert len(session.token) >= 32
    assert session.name.removeprefix("s_") not in session.token


def test_the_record_gives_back_each_of_the_last_answers(predictor: Predictor) -> None:
    session = new_session(predictor)
    answers = [session.answer(arrival(seq)) for seq in range(ANSWERS_KEPT + 2)]
    for seq, answer in enumerate(answers):
        again = session.repeat(FrameHeader("gray8", seq, None, 1))
        if seq < 2:
            told = json.loads(again.messages[0])
            assert (told["type"], told["seq"], told["reason"]) == ("dropped", seq, "repeated")
        else:
            assert again.messages == answer.messages
    assert (session.results, session.dropped) == (ANSWERS_KEPT + 2, 0)


def test_a_dropped_frame_counts_and_does_not_reach_the_network(predictor: Predictor) -> None:
    session = new_session(predictor)
    session.answer(arrival(0))
    dropped = json.loads(session.drop(FrameHeader("gray8", 1, None, 1), "replaced").messages[0])
    assert dropped == {"type": "dropped", "seq": 1, "time_us": None, "reason": "replaced"}
    result = result_of(session.answer(arrival(2)))
    assert (result["dropped"], result["areas_px"]["atrium"]) == (1, 2)
    assert session.last_seq == 2


def test_a_frame_of_another_codec_than_hello_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UnsupportedCodecError, match="png"):
        new_session(predictor, codec="png").answer(arrival(0))


def heart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the masks are, measure a heart of 75 beats a minute and an EF of 1 - 60/140."""
    numbers = itertools.count()

    def measure(_mask: Mask, _spacing_mm: object, *, keeps_outlines: bool) -> Reading:
        assert not keeps_outlines
        volume = 100 + 40 * np.cos(2 * np.pi * next(numbers) / 24)
        lv = Ventricle(
            area_px=volume ** (2 / 3),
            area_cm2=None,
            length_cm=None,
            volume_ml=None,
            volume_index=volume,
            volume_index_sd=0.1,
            length_index=volume ** (1 / 3),
            diameters_index_20=np.full(20, volume ** (1 / 3)),
            index_mm=None,
            apex=(0, 0),
            base=(1, 0),
            hinges=((1, -1), (1, 1)),
            axis_method="class_interface",
        )
        return Reading(lv, dict.fromkeys(STRUCTURES, ()), Quality("pass", ()), 1.0)

    monkeypatch.setattr("server.analysis.measure_frame", measure)


def test_beats_reach_the_wire_when_they_close_and_the_summary_holds_the_last_of_each(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart(monkeypatch)
    session = new_session(predictor, mask_encoding="none")
    sent: dict[int, dict[str, Any]] = {}
    for seq in range(121):
        for text in session.answer(arrival(seq)).messages[1:]:
            beat = json.loads(text)
            before = sent.get(beat["number"])
            assert beat["revision"] == (0 if before is None else before["revision"] + 1)
            assert beat["ed_seq"] < beat["es_seq"] <= seq
            sent[beat["number"]] = beat
    assert len(sent) >= 3
    *closing, last = map(json.loads, session.summary())
    sent |= {beat["number"]: beat for beat in closing}
    assert last["beats"] == [sent[number] for number in sorted(sent)]
    assert (last["results"], last["session"]) == (121, session.name)
    whole = [beat for beat in last["beats"] if beat["is_complete"]]
    assert len(whole) >= 3
    for beat in whole:
        assert beat["ef_percent"] == pytest.approx(100 * (1 - 60 / 140), abs=1.5)
        # End-diastole at every 24th frame, end-systole half a beat later.
        assert abs((beat["ed_seq"] + 12) % 24 - 12) <= 1
        assert abs(beat["es_seq"] % 24 - 12) <= 1
    assert last["ef"]["state"] == "measured"
    assert last["ef"]["heart_rate_bpm"] == pytest.approx(75, abs=1)


def test_the_ready_message_says_what_was_asked_for(predictor: Predictor) -> None:
    session = new_session(predictor, mask_encoding="contour", policy="every")
    ready = session.ready(4, 60.0, resumed=False)
    assert (ready.mask_encoding, ready.policy, ready.credits) == ("contour", "every", 4)
    assert (ready.last_seq, ready.network_size) == (None, SIDE)
    assert ready.structures == ("lv", "myocardium", "atrium")
    assert (ready.resume, ready.session) == (session.token, session.name)


@pytest.mark.parametrize(
    ("other", "fits"),
    [
        ({}, True),
        ({"model": "counting"}, True),
        ({"mask_encoding": "none", "policy": "every", "view": "A2C", "fps": 30.0}, True),
        ({"size": (SIDE, 64)}, False),
        ({"codec": "png"}, False),
        ({"region": None}, False),
        ({"spacing_mm": (1.0, 1.0)}, False),
        ({"model": "another"}, False),
    ],
)
def test_another_socket_must_describe_the_same_frames(
    predictor: Predictor, other: dict[str, Any], fits: bool
) -> None:
    hello = Hello(**{"size": (SIDE, SIDE), "region": REGION, **other})
    assert new_session(predictor).fits(hello) is fits
