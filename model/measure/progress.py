"""Where one stream's beat tracker stands."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """Where a stream stands.

    Attributes:
        run: number of the open run; beats of one run share a clock and an unbroken curve.
        epoch: rises after a pause so long that earlier beats no longer count.
        restarts: of the clock, as far as they were noticed.
        gaps: how often the curve broke.
        cuts: how often the picture became another one while beats counted.
        last_usable_ms: time of the last frame measured, None before the first.
        looked_ms: time of the last search for beats, None before the first.
        still_index: volume index at which the image stands still, None while it moves.
        still_since_ms: when the image came to stand still, None from when it moves for good.
        axes: directions of the last frames' long axes, (row, column) of unit length.
        is_finished: True when no frame follows.
        first_seq: number of the stream's first frame, None before it; samples count from there, or
            a number such as a time in nanoseconds would lose its last digits.
    """

    run: int = 0
    epoch: int = 0
    restarts: int = 0
    gaps: int = 0
    cuts: int = 0
    last_usable_ms: float | None = None
    looked_ms: float | None = None
    still_index: float | None = None
    still_since_ms: float | None = None
    axes: list[list[float]] = field(default_factory=list)
    is_finished: bool = False
    first_seq: int | None = None
