"""How beats become one figure with an interval, or none."""

from dataclasses import replace

import pytest

from model.measure.cycles import Cycle
from model.measure.ejection import EjectionFraction, summarise
from model.measure.rhythm import ClosedBeat
from model.measure.tally import FrameTally

CYCLE = Cycle(
    ed_ms=0.0, es_ms=320.0, end_ms=900.0, onset_ms=180.0, ed_seq=0, es_seq=10, edv_ml=120.0,
    esv_ml=48.0, ef_percent=60.0, fac_percent=42.0, ef_sd_points=2.0,
)  # fmt: skip


def beats(*efs: float, sd_points: float = 2.0, reasons: tuple[str, ...] = ()) -> list[ClosedBeat]:
    """Regular beats, one per EF."""
    return [
        ClosedBeat(
            number, 0, True, 0, 0, True,
            replace(
                CYCLE, ef_percent=ef, ed_ms=900.0 * number, es_ms=900.0 * number + 320,
                end_ms=900.0 * (number + 1), onset_ms=900.0 * number + 180, ed_seq=27 * number,
                es_seq=27 * number + 10, ef_sd_points=sd_points, reasons=reasons,
            ),
        )
        for number, ef in enumerate(efs)
    ]  # fmt: skip


def told(found: list[ClosedBeat], *notes: str) -> EjectionFraction:
    return summarise(found, FrameTally(), notes, is_finished=True)


def half_width(ef: EjectionFraction) -> float:
    assert ef.interval is not None
    return (ef.interval[1] - ef.interval[0]) / 2


def test_a_regular_heart_has_the_median_of_its_beats() -> None:
    ef = told(beats(58, 61, 60, 75, 59))
    assert (ef.state, ef.percent, ef.method, ef.beats) == ("measured", 60, "median_of_beats", 5)
    assert ef.heart_rate_bpm == pytest.approx(60_000 / 900)
    assert ef.reasons == ()


def test_volumes_fit_the_ef_that_stands_beside_them() -> None:
    ef = told(beats(50, 54, 58))
    assert ef.edv_ml == 120
    assert ef.esv_ml is not None
    assert 100 * (1 - ef.esv_ml / 120) == pytest.approx(54)


def test_one_beat_says_that_it_is_one() -> None:
    ef = told(beats(60))
    assert (ef.method, ef.beats, ef.reasons) == ("single_beat", 1, ("single_beat",))


def test_more_beats_narrow_the_interval_and_softer_outlines_widen_it() -> None:
    one, many = half_width(told(beats(60))), half_width(told(beats(*[59, 60, 61] * 4)))
    soft = half_width(told(beats(60, sd_points=6.0)))
    assert many < one < soft


def test_no_number_of_beats_removes_the_error_of_the_network() -> None:
    # 1.71 standard deviations of 5 points, each side (docs/measurement.md).
    assert half_width(told(beats(*[60] * 30, sd_points=0.0))) == pytest.approx(1.71 * 5.0)


def test_an_interval_stays_within_0_and_100() -> None:
    ef = told(beats(6, 6, 6))
    assert ef.interval is not None
    assert ef.interval[0] == 0.0


def test_an_interval_too_wide_to_help_is_withheld() -> None:
    ef = told(beats(60, sd_points=12.0))
    assert (ef.state, ef.percent, ef.interval) == ("withheld", None, None)
    assert ef.reasons[0] == "interval_too_wide"


def test_beats_that_differ_warn_and_beats_at_odds_withhold() -> None:
    assert "beats_disagree" in told(beats(*[45, 60, 66] * 4)).reasons
    ef = told(beats(*[25, 60, 66, 30, 70, 28] * 4))
    assert (ef.state, ef.reasons[0]) == ("withheld", "beats_disagree")


def test_where_most_beats_are_rejected_the_rest_count_for_nothing() -> None:
    good, bad = beats(60, 60), beats(*[60] * 5, reasons=("noisy_curve",))
    bad = [
        replace(beat, number=beat.number + 2, cycle=replace(beat.cycle, ed_seq=900 + beat.number))
        for beat in bad
    ]
    ef = told(good + bad)
    assert (ef.state, ef.reasons) == ("withheld", ("noisy_curve",))
    assert told(good + bad[:2]).state == "measured"


def test_halves_count_only_where_no_whole_beat_does() -> None:
    whole, half = beats(60)[0], beats(40, 40)[1]
    half = replace(half, cycle=replace(half.cycle, end_ms=None))
    assert told([whole, half]).percent == 60
    ef = told([half])
    assert ef.percent == 40
    assert "incomplete_beat" in ef.reasons


@pytest.mark.parametrize(("filling", "ejection"), [(58, 60), (69, 53)])
def test_two_halves_about_one_diastole_are_one_beat_that_empties_as_far_as_was_seen(
    filling: float, ejection: float
) -> None:
    # A clip that ends within systole misses the smallest volume, so its half says too little.
    before = replace(CYCLE, onset_ms=None, es_ms=-500.0, es_seq=-15, ef_percent=filling)
    after = replace(CYCLE, end_ms=None, ef_percent=ejection)
    halves = [
        replace(beats(0)[0], number=number, cycle=cycle)
        for number, cycle in enumerate([before, after])
    ]
    ef = told(halves)
    assert (ef.beats, ef.percent, ef.method) == (1, max(filling, ejection), "single_beat")


def test_of_two_halves_one_that_fails_its_gates_does_not_stand_for_the_beat() -> None:
    failed = replace(CYCLE, onset_ms=None, es_ms=-500.0, ef_percent=90, reasons=("noisy_curve",))
    passed = replace(CYCLE, end_ms=None)
    halves = [
        replace(beats(0)[0], number=number, cycle=cycle)
        for number, cycle in enumerate([failed, passed])
    ]
    assert told(halves).percent == 60


def test_notes_on_the_stream_and_warnings_of_most_beats_are_passed_on() -> None:
    found = beats(60, 60, 60)
    warned = [
        replace(beat, cycle=replace(beat.cycle, warnings=("low_frame_rate",))) for beat in found[:2]
    ]
    ef = told([*warned, found[2]], "times_not_rising")
    assert set(ef.reasons) == {"times_not_rising", "low_frame_rate"}


def test_a_figure_can_be_taken_back_for_what_measurement_cannot_see() -> None:
    ef = told(beats(60, 61, 62)).withheld_for("colour_overlay")
    assert (ef.state, ef.percent, ef.interval, ef.beats) == ("withheld", None, None, 0)
    assert ef.reasons == ("colour_overlay",)


@pytest.mark.parametrize("ef_percent", [15.0, 35.0, 60.0, 75.0])
def test_a_measured_ef_lies_within_its_interval(ef_percent: float) -> None:
    ef = told(beats(ef_percent, ef_percent + 1))
    assert ef.interval is not None
    assert ef.percent is not None
    assert 0 <= ef.interval[0] < ef.percent < ef.interval[1] <= 100


@pytest.mark.parametrize("count", [2, 3])
def test_what_was_shown_to_be_no_beat_tells_nothing_of_the_rhythm(count: int) -> None:
    whole = beats(*[60.0] * count)
    # A wave of filling was taken for the end of a beat, which was then found whole.
    piece = replace(
        whole[1],
        number=99,
        cycle=replace(
            whole[1].cycle, end_ms=900.0 + 500, ed_seq=28, reasons=("beat_not_confirmed",)
        ),
    )
    ef = told([whole[0], piece, *whole[1:]])
    assert (ef.state, ef.method, ef.beats) == ("measured", "median_of_beats", count)
    assert ef.heart_rate_bpm == pytest.approx(60_000 / 900)
