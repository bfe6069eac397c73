import pytest

from model import EjectionFraction
from model.measure.quality import AXIS_REASONS, GATES
from server.export.words import (
    ef_headline,
    ef_lines,
    quality_in_words,
    reason_in_words,
    sentence,
    whole,
)

MEASURED = EjectionFraction(
    "measured", 57.2, (52.1, 62.3), 44.0, "median_of_beats", 3, 63.4, 146.2, 62.4, ()
)


@pytest.mark.parametrize(
    "code", sorted({gate.reason for gate in GATES} | set(AXIS_REASONS.values()))
)
def test_every_reason_of_the_gates_has_words(code: str) -> None:
    assert reason_in_words(code) != code.replace("_", " ")


def test_an_unknown_reason_is_read_out() -> None:
    assert reason_in_words("moon_too_bright") == "moon too bright"


def test_several_reasons_make_one_sentence() -> None:
    assert sentence(["no_left_ventricle", "low_frame_rate"]) == (
        "No left ventricle is seen; the frame rate is low."
    )


def test_a_measured_fraction_comes_with_interval_beats_rate_and_volumes() -> None:
    assert ef_headline(MEASURED) == "57 %"
    assert ef_lines(MEASURED) == (
        "52 to 62 % (90 % interval)",
        "3 beats, 63 per minute",
        "EDV 146 ml, ESV 62 ml",
    )


def test_a_withheld_fraction_says_why() -> None:
    reasons = ("no_left_ventricle",)
    ef = EjectionFraction("withheld", None, None, None, "none", 0, None, None, None, reasons)
    assert (ef_headline(ef), ef_lines(ef)) == ("not given", ("No left ventricle is seen.",))


def test_quality_says_nothing_about_a_good_frame_and_what_is_wrong_with_a_bad_one() -> None:
    assert quality_in_words("pass", ()) == ""
    assert quality_in_words("fail", ("wall_missing",)) == (
        "Not measured: the heart's wall is not seen all round."
    )


@pytest.mark.parametrize(("exact", "on_the_wire"), [(81.46, 81.5), (81.449, 81.4), (62.5, 62.5)])
def test_a_figure_reads_the_same_before_and_after_the_wire(
    exact: float, on_the_wire: float
) -> None:
    assert whole(exact) == whole(on_the_wire)
