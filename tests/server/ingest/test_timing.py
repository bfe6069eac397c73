import struct
from pathlib import Path
from typing import Any

import pytest

from server.ingest import Clip, open_clip
from tests.server.ingest.making import grey_cine, save, ultrasound

COUNT = 4


def opened(tmp_path: Path, **attributes: Any) -> tuple[Clip, list[int | None]]:
    made = ultrasound(grey_cine(COUNT), **{"FrameTime": None} | attributes)
    with open_clip(save(made, tmp_path / "clip")) as clip:
        return clip, [frame.time_us for frame in clip.frames]


def test_a_frame_time_vector_is_cumulated(tmp_path: Path) -> None:
    clip, times_us = opened(tmp_path, FrameTimeVector=["0", "33", "50", "33"], FrameTime="40")
    assert times_us == [0, 33_000, 83_000, 116_000]
    assert clip.time_base.source == "FrameTimeVector"
    assert clip.time_base.duration_ms == 116 + 33  # the last frame lasts the median increment


def test_the_first_increment_leads_nowhere_whatever_it_says(tmp_path: Path) -> None:
    _, times_us = opened(tmp_path, FrameTimeVector=["33", "33", "50", "33"])
    assert times_us == [0, 33_000, 83_000, 116_000]


def test_the_first_increment_may_be_left_out(tmp_path: Path) -> None:
    clip, times_us = opened(tmp_path, FrameTimeVector=["33", "50", "33"])
    assert times_us == [0, 33_000, 83_000, 116_000]
    assert (clip.time_base.source, clip.warnings) == ("FrameTimeVector", ())


ORDER: list[tuple[str, Any, float]] = [
    ("FrameTime", "20", 20),
    ("CineRate", 40, 25),
    ("RecommendedDisplayFrameRate", 25, 40),
    ("EffectiveDuration", 0.4, 100),
    ("ActualFrameDuration", 50, 50),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_attribute_of_the_order_that_is_there_counts(tmp_path: Path, first: int) -> None:
    attributes = {keyword: value for keyword, value, _ in ORDER[first:]}
    clip, times_us = opened(tmp_path, **{"FrameTime": None} | attributes)
    keyword, _, period_ms = ORDER[first]
    assert clip.time_base.source == keyword
    assert clip.time_base.duration_ms == pytest.approx(COUNT * period_ms)
    assert times_us == [round(1000 * period_ms * index) for index in range(COUNT)]


@pytest.mark.parametrize("wrong", ["0", "0.1", "1000000", "-33"])
def test_a_frame_time_no_scanner_has_gives_way_to_the_next(tmp_path: Path, wrong: str) -> None:
    clip, times_us = opened(tmp_path, FrameTime=wrong, CineRate=50)
    assert clip.time_base.source == "CineRate"
    assert times_us == [0, 20_000, 40_000, 60_000]


def test_a_frame_time_of_several_values_is_none(tmp_path: Path) -> None:
    clip, times_us = opened(tmp_path, FrameTime=["33", "34"])
    assert clip.time_base.source is None
    assert times_us == [None] * COUNT


@pytest.mark.parametrize("vector", [["0"] * COUNT, ["0", "33"], ["0", "33", "-33", "33"]])
def test_a_vector_that_is_no_time_gives_way(tmp_path: Path, vector: list[str]) -> None:
    clip, _ = opened(tmp_path, FrameTimeVector=vector, CineRate=50)
    assert clip.time_base.source == "CineRate"


def test_unknown_stays_unknown(tmp_path: Path) -> None:
    clip, times_us = opened(tmp_path)
    assert (clip.time_base.source, clip.time_base.duration_ms) == (None, None)
    assert times_us == [None] * COUNT
    assert clip.warnings == ()


def test_times_that_are_there_and_no_good_are_a_warning(tmp_path: Path) -> None:
    clip, _ = opened(tmp_path, FrameTime="0.1")
    assert clip.warnings == ("time_base_implausible",)


def test_a_cine_rate_that_contradicts_the_frame_time_is_a_warning(tmp_path: Path) -> None:
    clip, _ = opened(tmp_path, FrameTime="20", CineRate=30)
    assert clip.time_base.source == "FrameTime"
    assert clip.warnings == ("frame_rates_disagree",)


def test_rates_a_tenth_apart_agree(tmp_path: Path) -> None:
    clip, _ = opened(tmp_path, FrameTime="31.97", CineRate=31)  # as in a real file
    assert clip.warnings == ()


def test_a_still_has_no_time(tmp_path: Path) -> None:
    made = ultrasound(grey_cine(1), FrameTime="40")
    with open_clip(save(made, tmp_path / "clip")) as clip:
        assert clip.time_base.source is None
        assert [frame.time_us for frame in clip.frames] == [None]


@pytest.mark.parametrize(("said", "rate"), [("62", 62.0), ("0", None), ("999", None)])
def test_the_heart_rate_is_kept_where_a_heart_can_have_it(
    tmp_path: Path, said: str, rate: float | None
) -> None:
    assert opened(tmp_path, HeartRate=said)[0].heart_rate_bpm == rate


def test_r_waves_are_kept_while_they_rise(tmp_path: Path) -> None:
    assert opened(tmp_path, RWaveTimeVector=[10.0, 900.0])[0].r_wave_times_ms == (10.0, 900.0)
    assert opened(tmp_path, RWaveTimeVector=[900.0, 10.0])[0].r_wave_times_ms == ()
    assert opened(tmp_path, RWaveTimeVector=[float("nan")])[0].r_wave_times_ms == ()


def test_numbers_that_are_none_do_not_break_a_clip(tmp_path: Path) -> None:
    path = save(ultrasound(grey_cine(COUNT), FrameTime="77.7777"), tmp_path / "clip")
    data = path.read_bytes()
    for text in (b"nan", b"inf", b"1e999", b"abc", b"1\\\\2", b""):
        path.write_bytes(data.replace(b"77.7777", text.ljust(7)))
        with open_clip(path) as clip:
            assert clip.time_base.source is None
    path.write_bytes(
        data.replace(struct.pack("<HH", 0x18, 0x1063), struct.pack("<HH", 0x18, 0x1064))
    )
    with open_clip(path) as clip:
        assert clip.time_base.source is None
