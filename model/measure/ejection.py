"""The ejection fraction of a clip or of a stream so far, or why there is none.

Source: ef-and-measurement.md section 1.5, steps 7 and 8; constants without a source are our own
and docs/measurement.md tells how they were set.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, stdev
from typing import Literal, Self

from model.measure.beatlog import NOT_CONFIRMED
from model.measure.rhythm import ClosedBeat, heart_rate_bpm, index_beats, is_irregular
from model.measure.tally import FrameTally

EjectionState = Literal["pending", "measured", "withheld"]

MODEL_SD_POINTS = 5.0
"""Error that the network leaves in the EF of one plane beside what its soft outlines tell of it.

Fitted on 50 validation patients: so that nine in ten references lie within their intervals. Other
weights need it fitted again (docs/measurement.md).
"""

BEAT_SD_POINTS = 3.0
"""Spread of one patient's beats, assumed while fewer than ENOUGH_TO_SPREAD were seen."""

ENOUGH_TO_SPREAD = 3
MEDIAN_PER_MEAN = 1.25
"""Standard error of a median over that of a mean: sqrt(pi / 2)."""

WIDTH_PER_SD = 1.71
"""Half of the interval over the standard deviation of an EF's error.

1.645 of a normal distribution times 1.04, the 90 % quantile of (error over half width) of beating
validation patients (docs/measurement.md).
"""

WIDEST_HALF_POINTS = 15.0
"""An interval wider than twice this says nothing that would help anyone."""

BEATS_DISAGREE_POINTS = 8.0
BEATS_AT_ODDS_POINTS = 15.0
"""Standard deviations over beats that warn, and that withhold in a regular rhythm."""

ENOUGH_IRREGULAR = 5
ENOUGH_INDEX_BEATS = 2

COUNTED_SHARE = 0.5
"""Where fewer of the beats than this pass their gates, chance may have let them through."""

PATIENCE_FRAMES = 90
USABLE_SHARE = 0.5
"""After so many frames of a view a stream with fewer usable ones is told why it has no beat."""

FEWEST_FRAMES = 8

SHOWN_REASONS = 4

EF_REASONS = (
    "no_frames",
    "no_complete_beat",
    "too_few_frames",
    "interval_too_wide",
    "beats_disagree",
    "single_beat",
    "incomplete_beat",
    "irregular_rhythm",
    "too_few_beats",
    "time_base_unknown",
    "times_not_rising",
    "curve_interrupted",
    "picture_changed",
    "no_spacing",
)
"""Reasons that an EF can have beside those of its beats and frames."""


@dataclass(frozen=True, slots=True)
class EjectionFraction:
    """EF with its interval, or why there is none.

    Attributes:
        state: "pending" before the first complete beat, "withheld" when it must not be given.
        percent: 0 to 100, None unless measured.
        interval: (low, high) percent, the central 90 %; there whenever percent is.
        fac_percent: fractional area change of the same beats.
        method: how beats were brought together: "single_beat", "median_of_beats",
            "mean_of_beats", "index_beats" or "biplane"; "none" unless measured.
        beats: how many beats the figure rests on.
        heart_rate_bpm: None where unknown.
        edv_ml: None without calibrated pixels.
        esv_ml: None without calibrated pixels.
        reasons: machine-readable: warnings when measured, else what is missing or wrong.
    """

    state: EjectionState
    percent: float | None
    interval: tuple[float, float] | None
    fac_percent: float | None
    method: str
    beats: int
    heart_rate_bpm: float | None
    edv_ml: float | None
    esv_ml: float | None
    reasons: tuple[str, ...]

    @classmethod
    def without_figure(cls, state: EjectionState, reasons: tuple[str, ...]) -> Self:
        """Say only why there is none."""
        reasons = tuple(dict.fromkeys(reasons))[:SHOWN_REASONS]
        return cls(state, None, None, None, "none", 0, None, None, None, reasons)

    def withheld_for(self, *reasons: str) -> "EjectionFraction":
        """Take the figure back for reasons that measurement cannot see, such as colour Doppler."""
        return EjectionFraction.without_figure("withheld", reasons)


def summarise(
    beats: Sequence[ClosedBeat], tally: FrameTally, notes: tuple[str, ...], *, is_finished: bool
) -> EjectionFraction:
    """Bring the beats together.

    Args:
        beats: those of one epoch, in the order in which they were announced.
        tally: of the frames.
        notes: reasons that concern the whole stream, such as its clock.
        is_finished: True when no frame follows.

    Returns:
        The EF, or why there is none.
    """
    latest = list(beats)
    if any(beat.cycle.is_complete and not beat.cycle.reasons for beat in latest):
        latest = [beat for beat in latest if beat.cycle.is_complete]
    latest = _one_a_diastole(latest)
    counted = [beat for beat in latest if not beat.cycle.reasons]
    if not latest:
        return _without_beats(tally, notes, is_finished)
    if len(counted) < COUNTED_SHARE * len(latest):
        against = Counter(reason for beat in latest for reason in dict.fromkeys(beat.cycle.reasons))
        found = tuple(name for name, _ in against.most_common())
        return EjectionFraction.without_figure("withheld", found + notes)
    return _guarded(_aggregate(counted, latest, notes))


def _one_a_diastole(beats: list[ClosedBeat]) -> list[ClosedBeat]:
    """Make one beat of two halves about one end of diastole: the one that empties further.

    An edge of the clip may cut systole off, and what it cuts off only ever makes the end-systolic
    volume too large. A half that passes its gates goes before one that does not.
    """
    by_worth = sorted(beats, key=lambda beat: (not beat.cycle.reasons, beat.cycle.ef_percent))
    best = {beat.cycle.ed_seq: beat.number for beat in by_worth}
    return [beat for beat in beats if best[beat.cycle.ed_seq] == beat.number]


def _without_beats(
    tally: FrameTally, notes: tuple[str, ...], is_finished: bool
) -> EjectionFraction:
    """Say what is missing where no beat was found."""
    if tally.frames == 0:
        return EjectionFraction.without_figure("pending", ("no_frames",))
    reasons: tuple[str, ...] = ()
    if tally.usable_share < USABLE_SHARE:
        reasons += tally.common_reasons()
    if is_finished and tally.frames < FEWEST_FRAMES:
        reasons += ("too_few_frames",)
    reasons += (*notes, "no_complete_beat")
    is_unlikely = tally.usable_share < USABLE_SHARE or "times_not_rising" in notes
    if is_finished or (is_unlikely and tally.of_view >= PATIENCE_FRAMES):
        return EjectionFraction.without_figure("withheld", reasons)
    return EjectionFraction.without_figure("pending", ("no_complete_beat",))


def _aggregate(
    counted: list[ClosedBeat], complete: list[ClosedBeat], notes: tuple[str, ...]
) -> EjectionFraction:
    """Make one figure of the beats that count, by the rule that their rhythm asks for."""
    # What was shown to be no beat is none of the rhythm's either.
    beats = [beat for beat in complete if NOT_CONFIRMED not in beat.cycle.reasons]
    irregular = is_irregular(beats)
    method, chosen, warnings = _choose(counted, beats, irregular)
    figures = [beat.cycle.ef_percent for beat in chosen]
    middle = fmean if method == "mean_of_beats" else median
    percent = float(middle(figures))
    spread = stdev(figures) if len(figures) >= ENOUGH_TO_SPREAD else BEAT_SD_POINTS
    if spread > BEATS_AT_ODDS_POINTS and not irregular:
        return EjectionFraction.without_figure("withheld", ("beats_disagree", *warnings, *notes))
    if spread > BEATS_DISAGREE_POINTS:
        warnings += ("beats_disagree",)
    half = _half_width(chosen, spread, method)
    edv_ml = _median_known([beat.cycle.edv_ml for beat in chosen])
    if edv_ml is None:
        warnings += ("no_spacing",)
    return EjectionFraction(
        state="measured",
        percent=percent,
        interval=(max(percent - half, 0.0), min(percent + half, 100.0)),
        fac_percent=float(middle([beat.cycle.fac_percent for beat in chosen])),
        method=method,
        beats=len(chosen),
        heart_rate_bpm=heart_rate_bpm(beats),
        edv_ml=edv_ml,
        # The median ESV would belong to another beat than the median EDV.
        esv_ml=None if edv_ml is None else edv_ml * (1 - percent / 100),
        reasons=tuple(dict.fromkeys(warnings + notes + _common_warnings(chosen))),
    )


def _choose(
    counted: list[ClosedBeat], complete: list[ClosedBeat], irregular: bool
) -> tuple[str, list[ClosedBeat], tuple[str, ...]]:
    """Choose the beats and how they are brought together.

    Returns:
        The method, its beats, and what to know of the choice.
    """
    if len(counted) == 1:
        is_half = not counted[0].cycle.is_complete
        return "single_beat", counted, ("single_beat",) + ("incomplete_beat",) * is_half
    if not irregular:
        is_half = not all(beat.cycle.is_complete for beat in counted)
        return "median_of_beats", counted, ("incomplete_beat",) * is_half
    index = [beat for beat in index_beats(complete) if not beat.cycle.reasons]
    if len(index) >= ENOUGH_INDEX_BEATS:
        return "index_beats", index, ("irregular_rhythm",)
    if len(counted) >= ENOUGH_IRREGULAR:
        return "mean_of_beats", counted, ("irregular_rhythm",)
    return "median_of_beats", counted, ("irregular_rhythm", "too_few_beats")


def _half_width(chosen: list[ClosedBeat], spread: float, method: str) -> float:
    """Add up what makes the EF uncertain.

    The network's error and the outlines' softness are the same in every beat; only the beats' own
    spread shrinks with their number.
    """
    soft = median(beat.cycle.ef_sd_points for beat in chosen)
    of_middle = spread / sqrt(len(chosen))
    if method != "mean_of_beats" and len(chosen) > 1:
        of_middle *= MEDIAN_PER_MEAN
    return WIDTH_PER_SD * sqrt(MODEL_SD_POINTS**2 + soft**2 + of_middle**2)


def _guarded(ef: EjectionFraction) -> EjectionFraction:
    """Withhold a figure too uncertain to be of use."""
    if ef.interval is None or ef.percent is None:
        return ef
    half = max(ef.interval[1] - ef.percent, ef.percent - ef.interval[0])
    return ef.withheld_for("interval_too_wide", *ef.reasons) if half > WIDEST_HALF_POINTS else ef


def _common_warnings(chosen: list[ClosedBeat]) -> tuple[str, ...]:
    """Name the warnings that stand on at least half of the beats."""
    stands_on = Counter(warning for beat in chosen for warning in beat.cycle.warnings)
    return tuple(name for name, count in stands_on.most_common() if 2 * count >= len(chosen))


def _median_known(values: list[float | None]) -> float | None:
    """Take the median of what is known, None where nothing is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
