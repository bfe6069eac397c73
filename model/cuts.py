"""Whether a stream's picture became another one from one frame to the next.

So it does where stored loops are shown one after the other, in a film of a whole study, and where
a capture card is put to another patient's screen. Of a heart that beats, a frame differs from the
one before it by a part of what systole changes.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from model.frame import APICAL_PRESENCE, Frame
from model.stillness import CELLS, cells_from, cells_to_text

Cells = NDArray[np.float32]
KeptCells = NDArray[np.float16]

CUT_STEP = 0.38
"""Distance of two frames that follow each other from which a cut is looked for: root mean square of
the difference of their cells, each picture less its mean and over its standard deviation.

Own choice: of CAMUS's pictures of other patients 98 % are farther, and the real clips and beating
patients at 15 frames a second and more stay below 0.30, whatever their gain.
"""

USUAL_TIMES, USUAL_KEPT = 2.0, 0.98
"""A cut is also so many times as far as any step of late; what a step was fades with each frame."""

FIRST_USUAL = 0.5
"""Before it is known how fast a heart moves, nothing is a cut, and no beat would be lost by it."""

GAP_US = 100_000
GAP_STEP = 0.45
"""After a longer gap, in which the heart may have come anywhere in its beat, the nearest of the
pictures of the last beat counts. A probe that was shifted a little meanwhile stays below this; of
other patients' pictures three in four are farther."""

KEPT, KEPT_EVERY_US, KEPT_EVERY_FRAMES = 9, 120_000, 4
"""Pictures of the last beat, and how far apart they are; by frames where these have no times."""

REPLAY_STEP = 0.25
"""A loop that begins again shows its first picture, or the one after that."""

SURE_FRAMES = 3
"""Frames of the other picture on end; a damaged frame is none."""

LEAST_CONTRAST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class CutWatch:
    """What the picture was.

    Attributes:
        last_HW: cells of the last frame that showed a heart, None before the first.
        first_HW: of the first frame of the present picture.
        before_HW: of the last frame before what may be a cut, None where nothing may.
        next_HW: of the first frame after it.
        seq: of the last frame that showed a heart.
        time_us: of that frame, None where unknown.
        kept_HW: of a few frames of the last beat.
        kept_at: when the last of them was kept, in microseconds, else by its number.
        usual: the longest step of late.
        frames: since what may be a cut.
        old_seq: the last frame before a cut that was made sure of with this frame, else None.
        before_seq: the last frame before what may be a cut.
        is_sudden: it came in the midst of an image that moved, so that nobody put the probe to
            another place meanwhile.
    """

    last_HW: Cells | None = None
    first_HW: Cells | None = None
    before_HW: Cells | None = None
    next_HW: Cells | None = None
    seq: int = 0
    time_us: int | None = None
    kept_HW: tuple[KeptCells, ...] = ()
    kept_at: int = 0
    usual: float = FIRST_USUAL
    frames: int = 0
    old_seq: int | None = None
    before_seq: int = 0
    is_sudden: bool = False

    def after(
        self, frame: Frame, cells_HW: Cells | None, presence: float, *, was_still: bool = False
    ) -> "CutWatch":
        """Take in the next frame.

        Args:
            frame: the next one.
            cells_HW: means of its cells, as ``StillWatch`` has them.
            presence: probability that it shows a heart; frames that show none are passed over.
            was_still: the image stood still before it.
        """
        if cells_HW is None or presence < APICAL_PRESENCE:
            return self if self.old_seq is None else replace(self, old_seq=None)
        mean, contrast = (each.item() for each in cv2.meanStdDev(cells_HW))
        shape_HW = np.asarray((cells_HW - mean) / max(contrast, LEAST_CONTRAST), np.float32)
        if self.last_HW is None or self.first_HW is None:
            return CutWatch(shape_HW, shape_HW, seq=frame.seq, time_us=frame.time_us)
        step = _distance(shape_HW, self.last_HW)
        now = replace(self, last_HW=shape_HW, seq=frame.seq, time_us=frame.time_us, old_seq=None)
        usual = max(step, USUAL_KEPT * self.usual)
        if self.before_HW is not None:
            is_back = _distance(shape_HW, self.before_HW) <= step
            if is_back:
                return replace(now, before_HW=None, next_HW=None)
            return replace(now, usual=usual)._made_sure()
        most = CUT_STEP
        is_gap = self._is_gap(frame)
        if is_gap:
            step = min((_distance(shape_HW, each) for each in self.kept_HW), default=step)
            most = GAP_STEP
        if step <= max(most, USUAL_TIMES * self.usual):
            return replace(now, usual=usual, **self._keep(frame, shape_HW))
        if _distance(shape_HW, self.first_HW) <= REPLAY_STEP:
            return now
        return replace(
            now,
            before_HW=self.last_HW,
            next_HW=shape_HW,
            before_seq=self.seq,
            frames=1,
            is_sudden=not (is_gap or was_still),
        )

    def nearest(self, pictures_HW: tuple[KeptCells, ...]) -> float:
        """Distance of the last frame that showed a heart to the nearest of some pictures."""
        if self.last_HW is None:
            return inf
        return min((_distance(self.last_HW, each_HW) for each_HW in pictures_HW), default=inf)

    def _is_gap(self, frame: Frame) -> bool:
        """Whether the heart was not seen for long before this frame."""
        if self.time_us is None or frame.time_us is None:
            return frame.seq - self.seq > 1
        return frame.time_us - self.time_us > GAP_US

    def _keep(self, frame: Frame, shape_HW: Cells) -> dict[str, Any]:
        """Which pictures of the last beat are kept after this frame."""
        at = frame.seq if frame.time_us is None else frame.time_us
        every = KEPT_EVERY_FRAMES if frame.time_us is None else KEPT_EVERY_US
        if self.kept_HW and 0 <= at - self.kept_at < every:
            return {}
        kept_HW = (*self.kept_HW, shape_HW.astype(np.float16))[-KEPT:]
        return {"kept_HW": kept_HW, "kept_at": at}

    def _made_sure(self) -> "CutWatch":
        """Count one more frame without the old picture."""
        if self.frames + 1 < SURE_FRAMES:
            return replace(self, frames=self.frames + 1)
        return replace(
            self,
            first_HW=self.next_HW,
            before_HW=None,
            next_HW=None,
            kept_HW=(),
            old_seq=self.before_seq,
        )

    def to_view(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return {
            "last": None if self.last_HW is None else cells_to_text(self.last_HW),
            "first": None if self.first_HW is None else cells_to_text(self.first_HW),
            "before": None if self.before_HW is None else cells_to_text(self.before_HW),
            "next": None if self.next_HW is None else cells_to_text(self.next_HW),
            "kept": [cells_to_text(each) for each in self.kept_HW],
            "kept_at": self.kept_at,
            "seq": self.seq,
            "time_us": self.time_us,
            "usual": self.usual,
            "frames": self.frames,
            "old_seq": self.old_seq,
            "before_seq": self.before_seq,
            "is_sudden": self.is_sudden,
        }

    @classmethod
    def from_view(cls, **view: Any) -> Self:
        """Read what ``to_view`` gave.

        Raises:
            ValueError: the cells are not those of an image.
        """
        last_HW, first_HW, before_HW, next_HW = (
            None if text is None else cells_from(text, np.float32)
            for text in (view.pop(name, None) for name in ("last", "first", "before", "next"))
        )
        kept_HW = tuple(cells_from(text, np.float16) for text in view.pop("kept", ()))
        return cls(last_HW, first_HW, before_HW, next_HW, kept_HW=kept_HW, **view)


def _distance(one_HW: Cells, other_HW: Cells | KeptCells) -> float:
    return cv2.norm(one_HW, other_HW.astype(np.float32, copy=False)) / CELLS
