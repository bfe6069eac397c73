"""One view's frames to masks, readings, beats and EF: the same for a live stream and for a clip."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from model import (
    Beat,
    BeatTracker,
    EjectionFraction,
    Frame,
    Mask,
    Predictor,
    Reading,
    Region,
    measure_frame,
)

BEATS_KEPT = 512
"""Beats that a summary can tell of: six minutes at 85 a minute."""

Correct = Callable[[int, Mask], Mask]
"""Gives the mask of the frame of a seq as it is to be measured."""

_BEAT_FIELDS = tuple(field.name for field in fields(Beat))


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What one frame says.

    Attributes:
        beats: closed or revised by this frame.
        ef: of all frames so far.
        infer_s: spent in preprocessing and the network.
        measure_s: spent in measuring.
    """

    mask: Mask
    reading: Reading
    beats: tuple[Beat, ...]
    ef: EjectionFraction
    infer_s: float
    measure_s: float


class Analysis:
    """Owns what a view's frames leave behind: the network's memory and the open beat."""

    def __init__(
        self,
        predictor: Predictor,
        region: Region | None = None,
        spacing_mm: tuple[float, float] | None = None,
        correct: Correct | None = None,
        *,
        is_one_of_several: bool = False,
    ) -> None:
        """Begin a view.

        Args:
            predictor: the network.
            region: box that holds the ultrasound image, None to find it by content.
            spacing_mm: row and column size of a pixel, None where unknown.
            correct: draws over the mask of a frame before it is measured.
            is_one_of_several: the region is known to be one of several sectors on the screen.
        """
        self._predictor = predictor
        self._spacing_mm = spacing_mm
        self._correct = correct
        self._is_one_of_several = is_one_of_several
        self._state = predictor.start(region, spacing_mm)
        self._tracker = BeatTracker()
        self._beats: dict[int, Beat] = {}

    @property
    def beats(self) -> tuple[Beat, ...]:
        """The last BEATS_KEPT beats, each in its last revision."""
        return tuple(self._beats.values())

    @property
    def wants_colours(self) -> bool:
        """Whether the next frame is to come with its colours, where it has any."""
        return self._state.colours.is_due

    @property
    def ef(self) -> EjectionFraction:
        """The ejection fraction so far."""
        return self._tracker.ejection_fraction()

    def step(self, frame: Frame, *, keeps_outlines: bool = True) -> Finding:
        """Take the next frame.

        Args:
            frame: the next one.
            keeps_outlines: False where nobody will look at the reading's contours.

        Raises:
            FrameError: it is of another size than the frames before.
            StateError: the network's answer is not finite.
            MeasurementError: a correction cannot be measured.
        """
        started_s = time.perf_counter()
        mask, self._state = self._predictor.step(frame, self._state)
        misled = self._state.misled_frames
        revised = self._tracker.forget_last(misled) if misled else ()
        if (old_seq := self._state.cuts.old_seq) is not None:
            revised += self._tracker.begin_picture(old_seq)
        if self._correct is not None:
            mask = self._correct(frame.seq, mask)
        if self._is_one_of_several:
            mask = replace(mask, is_one_of_several=True)
        inferred_s = time.perf_counter()
        reading = measure_frame(mask, self._spacing_mm, keeps_outlines=keeps_outlines)
        beats = revised + self._tracker.push(frame.seq, frame.time_us, reading)
        self._keep(beats)
        ef = self.ef
        measured_s = time.perf_counter()
        return Finding(mask, reading, beats, ef, inferred_s - started_s, measured_s - inferred_s)

    def finish(self) -> tuple[Beat, ...]:
        """Say that no frame follows; returns beats that only the end could close."""
        beats = self._tracker.finish()
        self._keep(beats)
        return beats

    def to_parts(self) -> list[bytes]:
        """As bytes: the network's memory, the open beat, and the beats so far."""
        beats = [[getattr(beat, name) for name in _BEAT_FIELDS] for beat in self.beats]
        memory = self._state.to_bytes(self._predictor.model.sha256)
        return [memory, self._tracker.to_bytes(), json.dumps(beats).encode()]

    def restore(self, memory: bytes, tracker: bytes, beats: bytes) -> None:
        """Go on from what ``to_parts`` wrote.

        Raises:
            StateError: these are not such bytes, or another model's.
        """
        self._state = self._predictor.resume(memory)
        self._tracker = BeatTracker.from_bytes(tracker)
        self._beats = {beat.number: beat for beat in map(_read_beat, json.loads(beats))}

    def _keep(self, beats: tuple[Beat, ...]) -> None:
        for beat in beats:
            self._beats[beat.number] = beat
            self._beats.pop(beat.number - BEATS_KEPT, None)


def _read_beat(values: list[Any]) -> Beat:
    beat = dict(zip(_BEAT_FIELDS, values, strict=True))
    return Beat(**{**beat, "reasons": tuple(beat["reasons"])})
