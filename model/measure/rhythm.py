"""Rhythm: beats that follow each other, their intervals, and which of them stand for the heart.

Source: ef-and-measurement.md section 1.5, step 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from model.measure.cycles import Cycle

CONTIGUOUS_MS = 150.0
"""A beat that starts this near to the end of the last one follows it."""

IRREGULAR_RMSSD = 0.12
INDEX_DIFFERENCE_MS = 60.0
INDEX_MIN_RR_MS = 500.0

FEWEST_INTERVALS = 3
"""Fewer say nothing of a rhythm."""


@dataclass(frozen=True, slots=True)
class ClosedBeat:
    """One beat that was announced.

    Attributes:
        number: as in Beat.
        revision: as in Beat.
        is_settled: True once it can no longer change.
        run: beats of one run share a clock and a curve without a long gap.
        epoch: rises after a pause so long that earlier beats no longer count.
        is_timed: False where the clock is made up.
        cycle: its figures.
    """

    number: int
    revision: int
    is_settled: bool
    run: int
    epoch: int
    is_timed: bool
    cycle: Cycle


def restored_beat(cycle: dict[str, Any], **rest: Any) -> ClosedBeat:
    """Build a beat from a snapshot."""
    reasons, warnings = tuple(cycle.pop("reasons")), tuple(cycle.pop("warnings"))
    return ClosedBeat(cycle=Cycle(**cycle, reasons=reasons, warnings=warnings), **rest)


def follows(before: ClosedBeat, after: ClosedBeat) -> bool:
    """Tell whether one beat begins where the other ends."""
    if before.run != after.run or before.cycle.end_ms is None:
        return False
    return abs(after.cycle.ed_ms - before.cycle.end_ms) <= CONTIGUOUS_MS


def intervals_ms(beats: Sequence[ClosedBeat]) -> list[float | None]:
    """Give each beat's time since the one before it, None where that one was not seen.

    Halves of ejection are compared: the steepest part of the curve tells time best.
    """
    intervals: list[float | None] = [None] * min(len(beats), 1)
    for before, after in pairwise(beats):
        first, second = before.cycle.onset_ms, after.cycle.onset_ms
        if first is None or second is None or not follows(before, after):
            intervals.append(None)
        else:
            intervals.append(second - first)
    return intervals


def is_irregular(beats: Sequence[ClosedBeat]) -> bool:
    """Tell whether successive intervals differ by more than a regular rhythm's do."""
    found = intervals_ms(beats)
    known = [each for each in found if each is not None]
    steps = [
        later - earlier
        for earlier, later in pairwise(found)
        if earlier is not None and later is not None
    ]
    if len(known) < FEWEST_INTERVALS:
        return False
    root_mean_square = fmean(each * each for each in steps) ** 0.5 if steps else 0.0
    return root_mean_square > IRREGULAR_RMSSD * fmean(known)


def index_beats(beats: Sequence[ClosedBeat]) -> list[ClosedBeat]:
    """Pick the beats whose two preceding intervals are alike and not short."""
    found = intervals_ms(beats)
    chosen = []
    for before, last, beat in zip(found, found[1:], beats[1:], strict=False):
        if before is None or last is None or min(before, last) < INDEX_MIN_RR_MS:
            continue
        if abs(last - before) <= INDEX_DIFFERENCE_MS:
            chosen.append(beat)
    return chosen


def heart_rate_bpm(beats: Sequence[ClosedBeat]) -> float | None:
    """Tell the mean rate over the beats' own lengths, None without a clock or a whole beat."""
    timed = [beat for beat in beats if beat.is_timed]
    lengths = [
        beat.cycle.end_ms - beat.cycle.ed_ms
        for beat in timed
        if beat.cycle.is_complete and beat.cycle.end_ms is not None
    ]
    intervals = [each for each in intervals_ms(timed) if each is not None]
    if not lengths:
        return None
    return 60_000.0 / fmean(intervals if len(intervals) >= FEWEST_INTERVALS else lengths)
