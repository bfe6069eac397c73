"""One stream's open beat: readings in, beats and a running EF out."""

from typing import Self

from model.measure.beats import Beat
from model.measure.ejection import EjectionFraction
from model.measure.reading import Reading


class BeatTracker:
    """Follow the volume curve of one stream; the same code serves live frames and whole clips."""

    def push(self, seq: int, time_us: int | None, reading: Reading) -> tuple[Beat, ...]:
        """Take the next frame's reading.

        Args:
            seq: the client's number of the frame.
            time_us: acquisition time in microseconds, None where it is unknown.
            reading: what the frame's mask says.

        Returns:
            Beats closed or revised by this frame.
        """
        return ()

    def finish(self) -> tuple[Beat, ...]:
        """Say that no frame follows.

        Returns:
            Beats that only the end of the clip could close or revise.
        """
        return ()

    def ejection_fraction(self) -> EjectionFraction:
        """Answer with the EF so far."""
        return EjectionFraction(
            "pending", None, None, None, "none", 0, None, None, None, ("no_complete_beat",)
        )

    def to_bytes(self) -> bytes:
        """Serialise, so that a parked session goes on elsewhere."""
        return b"{}"

    @classmethod
    def from_bytes(cls, snapshot: bytes) -> Self:
        """Restore what ``to_bytes`` wrote.

        Raises:
            StateError: not a snapshot of this version.
        """
        return cls()
