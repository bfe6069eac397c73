"""The overlay video of a clip: its frames with outlines, the volume curve, and the EF or why not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model import Beat, EjectionFraction, Frame, Reading


@dataclass(frozen=True, slots=True)
class MeasuredFrame:
    """What is known of one frame of a clip."""

    seq: int
    time_us: int | None
    reading: Reading


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a clip; the overlay tells all of it.

    Attributes:
        frames: one per frame, in order.
        beats: every beat in its last revision.
        ef: of the whole clip.
        view: such as "A4C", None where unknown.
    """

    frames: Sequence[MeasuredFrame]
    beats: Sequence[Beat]
    ef: EjectionFraction
    view: str | None = None


def write_overlay(path: Path, frames: Iterable[Frame], findings: Findings) -> None:
    """Write an H.264 MP4 that a browser plays, frame by frame, with bounded memory.

    Args:
        path: where to write; its folder exists.
        frames: the clip's frames once more, as many as ``findings.frames`` and in that order.
        findings: what was found in them.
    """
    raise NotImplementedError
