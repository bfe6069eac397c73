"""The book of beats: each is announced once, revised at most once, then stands.

Only a beat that rests on frames of no use is taken back, whenever that turns out.
"""

from dataclasses import replace

from model.measure.beats import Beat
from model.measure.curve import CLOSING_PERIODS
from model.measure.cycles import SAME_BEAT_MS, Cycle
from model.measure.rhythm import ClosedBeat

KEPT_BEATS = 32
"""Beats that the ejection fraction of an endless stream rests on."""

NOT_CONFIRMED = "beat_not_confirmed"

NOTICEABLE_EF_POINTS = 0.05
"""A change of the EF below it is not worth a revision."""


class BeatLog:
    """Compares what is found again and again on a curve with what was announced."""

    def __init__(self) -> None:
        self.beats: list[ClosedBeat] = []
        self.count = 0

    def after_ms(self, run: int) -> float:
        """Tell up to when a run's beats can no longer change."""
        settled = [beat.cycle.es_ms for beat in self.beats if beat.run == run and beat.is_settled]
        return max(settled) + SAME_BEAT_MS if settled else float("-inf")

    def open_ms(self, run: int) -> tuple[float, ...]:
        """Give the ends of systole of a run's beats that may still be revised."""
        return tuple(beat.cycle.es_ms for beat in self.beats if _is_open(beat, run))

    def rests_until_ms(self, run: int) -> float:
        """Tell until when a run's next beat cannot be over.

        An end of diastole counts from CLOSING_PERIODS of the run's shortest beat on.
        """
        whole = [each.cycle for each in self.beats if each.run == run and each.cycle.is_complete]
        ends_ms = [each.last_ms for each in whole]
        lengths_ms = [each.last_ms - each.ed_ms for each in whole]
        return max(ends_ms) + CLOSING_PERIODS * min(lengths_ms) if whole else float("-inf")

    def take(
        self, cycles: list[Cycle], run: int, epoch: int, *, is_timed: bool, is_last: bool
    ) -> tuple[Beat, ...]:
        """Enter what was found.

        Args:
            cycles: beats of the run that are not settled yet, in order of time.
            run: what they belong to.
            epoch: as in ClosedBeat.
            is_timed: False where the clock is made up.
            is_last: True when the run is over: its beats settle now.

        Returns:
            Beats announced or revised by it.
        """
        unmatched = list(cycles)
        found_again: dict[int, Cycle] = {}
        for beat in self.beats:
            same = _same_beat(beat, unmatched) if _is_open(beat, run) else None
            if same is not None:
                found_again[beat.number] = same
                unmatched.remove(same)
        if not (unmatched or is_last):
            return ()
        # An open beat settles when the next one closes.
        revised = self._settle(run, found_again)
        announced = [self._announce(each, run, epoch, is_timed, is_last) for each in unmatched]
        del self.beats[:-KEPT_BEATS]
        return tuple(to_beat(beat) for beat in revised + announced)

    def withdraw(self, run: int, after_ms: float) -> tuple[Beat, ...]:
        """Let a run's beats that go on after a time count no longer, settled or not.

        Returns:
            Beats revised by it.
        """
        revised = []
        for place, beat in enumerate(self.beats):
            cycle = beat.cycle
            if beat.run != run or cycle.last_ms <= after_ms or NOT_CONFIRMED in cycle.reasons:
                continue
            revision = beat.revision + 1
            beat = replace(beat, cycle=_unconfirmed(cycle), revision=revision, is_settled=True)
            self.beats[place] = beat
            revised.append(to_beat(beat))
        return tuple(revised)

    def _settle(self, run: int, found_again: dict[int, Cycle]) -> list[ClosedBeat]:
        """Close the book on a run's open beats."""
        revised = []
        for place, beat in enumerate(self.beats):
            if not _is_open(beat, run):
                continue
            cycle = found_again.get(beat.number) or _unconfirmed(beat.cycle)
            if _differs(beat.cycle, cycle):
                beat = replace(beat, cycle=cycle, revision=beat.revision + 1)
                revised.append(beat)
            self.beats[place] = replace(beat, is_settled=True)
        return revised

    def _announce(
        self, cycle: Cycle, run: int, epoch: int, is_timed: bool, is_last: bool
    ) -> ClosedBeat:
        """Give a new beat its number."""
        beat = ClosedBeat(self.count, 0, is_last, run, epoch, is_timed, cycle)
        self.count += 1
        self.beats.append(beat)
        return beat


def to_beat(closed: ClosedBeat) -> Beat:
    """Make the value that clients see."""
    cycle = closed.cycle
    return Beat(
        number=closed.number,
        revision=closed.revision,
        ed_seq=cycle.ed_seq,
        es_seq=cycle.es_seq,
        ed_time_ms=cycle.ed_ms if closed.is_timed else None,
        es_time_ms=cycle.es_ms if closed.is_timed else None,
        ed_volume_ml=cycle.edv_ml,
        es_volume_ml=cycle.esv_ml,
        ef_percent=cycle.ef_percent,
        fac_percent=cycle.fac_percent,
        is_complete=cycle.is_complete,
        reasons=cycle.reasons,
    )


def _unconfirmed(cycle: Cycle) -> Cycle:
    return replace(cycle, reasons=(NOT_CONFIRMED, *cycle.reasons))


def _is_open(beat: ClosedBeat, run: int) -> bool:
    """Tell whether a beat may still be revised."""
    return beat.run == run and not beat.is_settled


def _same_beat(beat: ClosedBeat, cycles: list[Cycle]) -> Cycle | None:
    """Find the beat among others by the end of its systole."""
    if not cycles:
        return None
    nearest = min(cycles, key=lambda each: abs(each.es_ms - beat.cycle.es_ms))
    return nearest if abs(nearest.es_ms - beat.cycle.es_ms) <= SAME_BEAT_MS else None


def _differs(before: Cycle, after: Cycle) -> bool:
    """Tell whether a client would want to know."""
    if (before.ed_seq, before.es_seq, before.reasons) != (
        after.ed_seq,
        after.es_seq,
        after.reasons,
    ):
        return True
    return abs(before.ef_percent - after.ef_percent) > NOTICEABLE_EF_POINTS
