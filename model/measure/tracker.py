"""One stream's open beat: readings in, beats and a running EF out."""

import json
from dataclasses import asdict, replace
from math import hypot, inf
from statistics import median
from typing import Any, Self

import numpy as np

from model.errors import StateError
from model.measure.beatlog import BeatLog
from model.measure.beats import Beat
from model.measure.clock import Clock
from model.measure.curve import MIN_STROKE_SHARE
from model.measure.cycles import find_cycles
from model.measure.ejection import EjectionFraction, summarise
from model.measure.progress import Progress
from model.measure.reading import Reading
from model.measure.rhythm import ClosedBeat, restored_beat
from model.measure.samples import SampleStore, sample_row
from model.measure.tally import FrameTally

SNAPSHOT_VERSION = 1

WINDOW_MS = 6000.0
"""Three beats at 35 a minute."""

GAP_MS = 100.0
GAP_FRAMES = 2.5
"""A longer time without a usable frame breaks the curve; a low frame rate may lose one frame.

Source: ef-and-measurement.md section 1.5 step 2 for the milliseconds.
"""

FIRST_GAP_MS = 300.0
"""The same while the frame rate is not known yet."""

PAUSE_MS = 10_000.0
"""After a longer time without a usable frame that moves, beats may be of another patient."""

STILL_MS = 500.0
STILL_FRAMES = 5
STILL_SHARE = 0.003
"""The image stands still where the volume moves by less than this share of itself in that time.

An image that is sent again and again leaves a tenth of a percent, noise of one grey level in its
pixels over one and a half. It moves again with a step of MIN_STROKE_SHARE; smaller ones are the
network's memory coming to rest, which is followed.
"""

STILL_FOLLOWED = 0.1
"""Of each such step."""

MOVING_MS = 1000.0
"""An image that moves for so long does so for good; a caliper drawn on a still one is a step."""

LOOK_MS = 60.0
"""Least time between two searches for beats."""

FALLEN_SHARE = 0.08
FALL_MS = 500.0
RANGE_MS = 2000.0
"""A beat can only close while the curve falls: by this share of the last 2 s' range in 0.5 s."""

AXIS_FRAMES = 5
AXIS_COSINE = 0.82
"""An axis turned by more than 35 degrees against the last frames' is no ventricle's."""


class BeatTracker:
    """Follow the volume curve of one stream; the same code serves live frames and whole clips."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._tally = FrameTally()
        self._log = BeatLog()
        self._store = SampleStore(WINDOW_MS)
        self._at = Progress()
        self._ef: EjectionFraction | None = None

    def push(self, seq: int, time_us: int | None, reading: Reading) -> tuple[Beat, ...]:
        """Take the next frame's reading.

        Args:
            seq: the client's number of the frame.
            time_us: acquisition time in microseconds, None where it is unknown. A frame whose time
                does not rise is left out, and the EF says so.
            reading: what the frame's mask says.

        Returns:
            Beats closed or revised by this frame.
        """
        is_flipped = self._is_flipped(reading)
        is_usable = reading.lv is not None and reading.quality.state != "fail" and not is_flipped
        self._tally.add(reading.quality.reasons, is_usable)
        self._at.is_finished = False
        if self._at.first_seq is None:
            self._at.first_seq = seq
        if not self._shown_beats():
            self._ef = None
        time_ms = self._clock.read(seq, time_us)
        if time_ms is None:
            # The notes tell of it at once: where the clock stands still no beat follows.
            self._ef = None
            return ()
        volume_index = reading.lv.volume_index if reading.lv is not None and is_usable else None
        is_cut = self._is_broken(time_ms) or self._moves_again(volume_index, reading)
        beats = self._close_run() if is_cut else ()
        if is_usable:
            self._note_usable(time_ms)
        if volume_index is not None and reading.still_since_seq is not None:
            beats += self._hold(reading.still_since_seq, time_ms, volume_index)
        if self._at.still_index is not None:
            return beats
        if is_usable or len(self._store) > 0:
            place = seq - self._at.first_seq
            row = sample_row(time_ms, place, reading, is_usable, is_flipped=is_flipped)
            self._store.append(row)
        if is_usable:
            self._note_still(time_ms)
            self._note_moving(time_ms)
            if self._is_falling(time_ms):
                self._at.looked_ms = time_ms
                beats += self._look(is_last=False, takes_halves=False)
        return beats

    def forget_last(self, frames: int) -> tuple[Beat, ...]:
        """Begin the curve anew without the latest frames, in which the heart was not well seen.

        Args:
            frames: how many.

        Returns:
            Beats revised: those that rest on such frames count no longer.
        """
        self._store.drop_last(frames)
        return self._close_shortened()

    def begin_picture(self, old_seq: int) -> tuple[Beat, ...]:
        """Begin anew with another picture; returns beats closed or revised.

        Args:
            old_seq: number of the last frame that showed the old one.
        """
        self._store.drop_after(old_seq - (self._at.first_seq or 0))
        beats = self._close_shortened()
        self._at.cuts += any(self._counts(beat) for beat in self._log.beats)
        self._begin_view()
        return beats

    def finish(self) -> tuple[Beat, ...]:
        """Say that no frame follows.

        Returns:
            Beats that only the end of the clip could close or revise.
        """
        beats = self._look(is_last=True, takes_halves=False)
        if not any(self._counts(beat) for beat in self._log.beats):
            # Half a beat is better than none.
            beats += self._look(is_last=True, takes_halves=True)
        self._open_run()
        self._at.is_finished, self._ef = True, None
        return beats

    def ejection_fraction(self) -> EjectionFraction:
        """Answer with the EF so far."""
        if self._ef is None:
            self._ef = summarise(
                self._shown_beats(), self._tally, self._notes(), is_finished=self._at.is_finished
            )
        return self._ef

    def _shown_beats(self) -> list[ClosedBeat]:
        """Give the beats of this epoch; at the end of a stream those of the last that had any.

        Live, the EF of another patient before a pause must not stand beside this one's picture.
        """
        beats, epoch = self._log.beats, self._at.epoch
        if self._at.is_finished and beats:
            epoch = beats[-1].epoch
        return [beat for beat in beats if beat.epoch == epoch]

    def to_bytes(self) -> bytes:
        """Serialise, so that a parked session goes on elsewhere."""
        content = {
            "version": SNAPSHOT_VERSION,
            "clock": asdict(self._clock),
            "tally": asdict(self._tally),
            "at": asdict(self._at),
            "count": self._log.count,
            "beats": [asdict(beat) for beat in self._log.beats],
            "samples": self._store.to_text(),
        }
        return json.dumps(content, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_bytes(cls, snapshot: bytes) -> Self:
        """Restore what ``to_bytes`` wrote.

        Raises:
            StateError: not a snapshot of this version.
        """
        try:
            content = json.loads(snapshot)
            version = content.pop("version")
            if version != SNAPSHOT_VERSION:
                raise StateError(
                    f"beats were stored by version {version}, wanted {SNAPSHOT_VERSION}"
                )
            return cls._restored(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError("beats were stored by another version, or are none") from error

    @classmethod
    def _restored(
        cls,
        clock: dict[str, Any],
        tally: dict[str, Any],
        at: dict[str, Any],
        count: int,
        beats: list[dict[str, Any]],
        samples: str,
    ) -> Self:
        """Put the parts of a snapshot together."""
        tracker = cls()
        tracker._clock = Clock(**clock)
        tracker._tally = FrameTally.restored(**tally)
        # An earlier release counted from 0.
        tracker._at = Progress(**{"first_seq": 0, **at})
        tracker._log.count = count
        tracker._log.beats = [restored_beat(**each) for each in beats]
        tracker._store.fill_from_text(samples)
        return tracker

    def _look(self, *, is_last: bool, takes_halves: bool) -> tuple[Beat, ...]:
        """Search the window for beats and enter them into the log."""
        if len(self._store) == 0:
            return ()
        at = self._at
        cycles = find_cycles(
            self._store.samples(),
            is_timed=self._clock.is_timed,
            takes_halves=takes_halves,
            after_ms=self._log.after_ms(at.run),
            known_ms=() if is_last else self._log.open_ms(at.run),
        )
        if cycles:
            self._note_moving(inf)
        first = at.first_seq or 0
        cycles = [
            replace(each, ed_seq=first + each.ed_seq, es_seq=first + each.es_seq) for each in cycles
        ]
        beats = self._log.take(
            cycles, at.run, at.epoch, is_timed=self._clock.is_timed, is_last=is_last
        )
        if beats:
            self._ef = None
        return beats

    def _close_run(self) -> tuple[Beat, ...]:
        """Settle the beats before a gap and begin anew after it."""
        beats = self._look(is_last=True, takes_halves=False)
        self._at.gaps += len(self._store) > 0
        self._open_run()
        self._ef = None
        return beats

    def _close_shortened(self) -> tuple[Beat, ...]:
        """Close a run whose last rows were dropped; beats that rest on those count no longer."""
        times_ms = self._store.latest_times_ms()
        last_ms = float(times_ms[-1]) if len(times_ms) else -inf
        run = self._at.run
        return self._close_run() + self._log.withdraw(run, last_ms)

    def _open_run(self) -> None:
        """Forget the curve."""
        self._store.clear()
        self._at.run += 1
        self._at.looked_ms = self._at.still_index = None
        self._at.axes = []

    def _note_usable(self, time_ms: float) -> None:
        """Remember when a frame was last measured."""
        last_ms = self._at.last_usable_ms
        if last_ms is not None and time_ms - last_ms > PAUSE_MS:
            self._begin_view()
        self._at.last_usable_ms = time_ms

    def _begin_view(self) -> None:
        """Let earlier beats no longer count."""
        self._at.epoch += 1
        self._tally.forget()
        self._at.still_since_ms = self._ef = None

    def _note_still(self, time_ms: float) -> None:
        """Notice that the image stands still; what is sent of it on end is no part of a beat."""
        latest_T = self._store.latest_volumes()[-STILL_FRAMES:]
        if np.ptp(latest_T) > STILL_SHARE * latest_T[-1]:
            return
        recent = self._store.samples().between(time_ms - STILL_MS, time_ms).usable()
        times_T, volumes_T = recent.time_ms_T, recent.volume_T
        is_long = len(times_T) >= STILL_FRAMES and time_ms - times_T[0] >= 0.8 * STILL_MS
        if is_long and np.ptp(volumes_T) <= STILL_SHARE * volumes_T[-1]:
            self._at.still_index = float(volumes_T[-1])
            if self._at.still_since_ms is None:
                self._at.still_since_ms = float(times_T[0])

    def _note_moving(self, time_ms: float) -> None:
        """Notice that an image that stood still moves for good, and may be another patient's."""
        since_ms = self._at.still_since_ms
        if since_ms is None or self._at.still_index is not None:
            return
        began_ms = float(self._store.samples().time_ms_T[0])
        if time_ms - began_ms >= MOVING_MS:
            self._at.still_since_ms = None
            if began_ms - since_ms > PAUSE_MS:
                self._begin_view()

    def _hold(self, since_seq: int, time_ms: float, volume_index: float) -> tuple[Beat, ...]:
        """Leave out what noise made of an image that stands still, whatever its volume does."""
        beats: tuple[Beat, ...] = ()
        if self._at.still_index is None:
            self._store.drop_after(since_seq - (self._at.first_seq or 0))
            times_ms = self._store.latest_times_ms()
            beats = self._close_shortened()
            if self._at.still_since_ms is None:
                self._at.still_since_ms = float(times_ms[-1]) if len(times_ms) else time_ms
        self._at.still_index = volume_index
        return beats

    def _moves_again(self, volume_index: float | None, reading: Reading) -> bool:
        """Follow an image that stands still, and tell whether it does so no longer."""
        still = self._at.still_index
        if still is None or volume_index is None or reading.still_since_seq is not None:
            return False
        self._at.still_index = still + STILL_FOLLOWED * (volume_index - still)
        return abs(volume_index - still) > MIN_STROKE_SHARE * still

    def _is_broken(self, time_ms: float) -> bool:
        """Tell whether the curve cannot be followed from its last usable frame to this time."""
        if self._clock.restarts > self._at.restarts:
            self._at.restarts = self._clock.restarts
            self._at.last_usable_ms = self._at.still_since_ms = None
            return True
        if len(self._store) == 0 or self._at.last_usable_ms is None:
            return False
        gap_ms = time_ms - self._at.last_usable_ms
        return gap_ms > GAP_MS and gap_ms > self._longest_gap_ms()

    def _longest_gap_ms(self) -> float:
        """Tell how long a gap may be at this frame rate."""
        latest = self._store.latest_times_ms()
        if len(latest) < 3:
            return FIRST_GAP_MS
        return GAP_FRAMES * float(np.median(np.diff(latest)))

    def _is_falling(self, time_ms: float) -> bool:
        """Tell whether it is worth to look for the end of a beat."""
        if self._at.looked_ms is not None and time_ms - self._at.looked_ms < LOOK_MS:
            return False
        if time_ms < self._log.rests_until_ms(self._at.run):
            return False
        recent = self._store.samples().between(time_ms - RANGE_MS, time_ms).usable()
        volumes_T = recent.volume_T
        highest = float(volumes_T[recent.time_ms_T >= time_ms - FALL_MS].max())
        return highest - float(volumes_T[-2:].mean()) >= FALLEN_SHARE * float(np.ptp(volumes_T))

    def _is_flipped(self, reading: Reading) -> bool:
        """Tell whether the long axis lies elsewhere than in the last frames."""
        if reading.lv is None or reading.quality.state == "fail":
            return False
        (apex_row, apex_col), (base_row, base_col) = reading.lv.apex, reading.lv.base
        row, col = base_row - apex_row, base_col - apex_col
        size = max(hypot(row, col), 1e-9)
        axes = self._at.axes
        is_flipped = False
        if axes:
            usual_row, usual_col = (median(each[side] for each in axes) for side in (0, 1))
            usual_size = hypot(usual_row, usual_col)
            along = row * usual_row + col * usual_col
            is_flipped = usual_size > 0 and along < AXIS_COSINE * size * usual_size
        self._at.axes = [*axes[1 - AXIS_FRAMES :], [row / size, col / size]]
        return is_flipped

    def _counts(self, beat: ClosedBeat) -> bool:
        return beat.epoch == self._at.epoch and not beat.cycle.reasons

    def _notes(self) -> tuple[str, ...]:
        """Name what is wrong with the stream as a whole."""
        notes = []
        if not self._clock.is_timed:
            notes.append("time_base_unknown")
        if self._clock.refused > 0:
            notes.append("times_not_rising")
        if self._at.gaps > 0:
            notes.append("curve_interrupted")
        if self._at.cuts > 0 and self._at.is_finished:
            notes.append("picture_changed")
        return tuple(notes)
