"""A stream parked as bytes: it goes on as if nothing had been, and never grows."""

import json
from dataclasses import replace

import pytest

from model.errors import StateError
from model.measure import Beat, BeatTracker
from model.measure.quality import FRAME_REASONS
from tests.model.measure.simulation import NOTHING, Heart, frame_times_ms, noisy_readings


@pytest.mark.parametrize("cut", [1, 40, 97, 150, 233])
@pytest.mark.parametrize("is_timed", [True, False])
def test_a_stream_restored_from_bytes_goes_on_identically(cut: int, is_timed: bool) -> None:
    times = frame_times_ms(9.0, 30)
    readings = noisy_readings(Heart.regular(63, 55), times, 0.03)
    readings[120:135] = [NOTHING] * 15
    whole, parted = BeatTracker(), BeatTracker()
    for seq, (time_ms, reading) in enumerate(zip(times, readings, strict=True)):
        time_us = round(time_ms * 1000) if is_timed else None
        if seq == cut:
            snapshot = parted.to_bytes()
            parted = BeatTracker.from_bytes(snapshot)
            assert parted.to_bytes() == snapshot
        assert parted.push(seq, time_us, reading) == whole.push(seq, time_us, reading)
        assert parted.ejection_fraction() == whole.ejection_fraction()
    assert parted.finish() == whole.finish()
    assert parted.ejection_fraction() == whole.ejection_fraction()
    assert parted.to_bytes() == whole.to_bytes()


def test_a_stream_saved_when_fewer_reasons_were_known_goes_on() -> None:
    times = frame_times_ms(4.0, 30)
    readings = [
        NOTHING if seq % 3 else each
        for seq, each in enumerate(noisy_readings(Heart.regular(63, 55), times, 0.03))
    ]
    tracker = BeatTracker()
    for seq, (time_ms, reading) in enumerate(zip(times, readings, strict=True)):
        tracker.push(seq, round(time_ms * 1000), reading)
    saved = json.loads(tracker.to_bytes())
    known = saved["tally"]["weights"]
    assert len(known) == len(FRAME_REASONS)
    assert known.pop() == 0.0  # of the reason that was new
    restored = BeatTracker.from_bytes(json.dumps(saved).encode())
    assert restored.to_bytes() == tracker.to_bytes()


@pytest.mark.parametrize(
    ("first", "step"), [(1_700_000_000_000_000_000, 33_333_333), (2**64 - 271, 1)]
)
def test_beats_name_their_frames_however_large_the_numbers(first: int, step: int) -> None:
    times = frame_times_ms(9.0, 30)
    readings = noisy_readings(Heart.regular(63, 55), times, 0.03)
    counted, large = BeatTracker(), BeatTracker()
    wanted: list[Beat] = []
    found: list[Beat] = []
    for index, (time_ms, reading) in enumerate(zip(times, readings, strict=True)):
        if index == 97:
            large = BeatTracker.from_bytes(large.to_bytes())
        wanted += counted.push(index, round(time_ms * 1000), reading)
        found += large.push(first + step * index, round(time_ms * 1000), reading)
    wanted += counted.finish()
    found += large.finish()
    assert len(wanted) > 5
    assert found == [
        replace(beat, ed_seq=first + step * beat.ed_seq, es_seq=first + step * beat.es_seq)
        for beat in wanted
    ]


def test_what_a_stream_keeps_does_not_grow() -> None:
    heart, tracker, sizes = Heart.regular(75, 60), BeatTracker(), []
    times = frame_times_ms(60.0, 30)
    for seq, reading in enumerate(noisy_readings(heart, times, 0.02)):
        tracker.push(seq, round(times[seq] * 1000), reading)
        if seq % 300 == 299:
            sizes.append(len(tracker.to_bytes()))
    assert sizes[-1] < 1.1 * sizes[4]
    assert max(sizes) < 64_000


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[1]",
        b'{"version":999}',
        BeatTracker().to_bytes()[:-5],
        json.dumps({**json.loads(BeatTracker().to_bytes()), "samples": "AAAA"}).encode(),
        json.dumps({**json.loads(BeatTracker().to_bytes()), "clock": {"x": 1}}).encode(),
    ],
)
def test_bytes_that_are_no_snapshot_are_refused(broken: bytes) -> None:
    with pytest.raises(StateError):
        BeatTracker.from_bytes(broken)
