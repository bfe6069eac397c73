"""Whether a pixel of a stream still has the size that the client declared.

Depth and zoom change it. Either the sector then has another size on the screen, or, within the same
sector, the picture becomes another one in the midst of a moving image. A probe that is put to
another place changes the picture too, but not before the image was lost, or stood still.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from model.cuts import CutWatch, KeptCells
from model.frame import Region
from model.stillness import cells_from, cells_to_text

SETTLED_FRAMES = 40
"""More than a sector's growth goes unnoticed for."""

RESIZED_SHARE, MOVED_SHARE = 0.12, 0.05
"""Own choice: of a side of the sector, and of the longer one by which its top moved."""

BACK_STEP = 0.25
"""From any picture of a beat at another depth to the nearest of the beat before it is farther.

Own choice, on the sample clip and five of CAMUS's patients made to beat, whose own next beats come
to 0.03 and less: at a tenth more or less it is 0.34 or more. A twentieth, 0.25 or more, is often no
cut in the first place, and goes unnoticed.
"""


@dataclass(frozen=True, slots=True, eq=False)
class ScaleWatch:
    """Where, and as what picture, a heart was first seen at leisure: there the pixels' size holds.

    Attributes:
        region: that place, None before.
        apical_frames: that showed an apical view, where the network looks now.
        pictures_HW: of a beat before the picture became another one; empty unless it did.
    """

    region: Region | None = None
    apical_frames: int = 0
    pictures_HW: tuple[KeptCells, ...] = ()

    def after_picture(self, was: CutWatch, now: CutWatch) -> "ScaleWatch":
        """Take in what the picture became with a frame.

        Args:
            was: the picture before the frame.
            now: with it.
        """
        if now.before_HW is not None:
            return self  # a cut is not made sure of yet
        if self.pictures_HW:
            is_back = now.nearest(self.pictures_HW) <= BACK_STEP
            return replace(self, pictures_HW=()) if is_back else self
        if self.region is None or now.old_seq is None or not now.is_sudden:
            return self
        return replace(self, pictures_HW=was.kept_HW)

    def after(self, region: Region, *, is_apical: bool) -> "ScaleWatch":
        """Take in where a frame was seen.

        Args:
            region: where the network looked.
            is_apical: whether it saw an apical view.
        """
        if self.region is not None or not is_apical:
            return self
        frames = self.apical_frames + 1
        return ScaleWatch(region if frames == SETTLED_FRAMES else None, frames)

    def elsewhere(self) -> "ScaleWatch":
        """Begin to look elsewhere."""
        return replace(self, apical_frames=0)

    def is_left(self, region: Region) -> bool:
        """Whether the image has another size now, on the screen and so in each of its pixels.

        What begins at the same place is the same image, of which more or less of the depth shows.
        """
        was = self.region
        if was is None:
            return False
        if self.pictures_HW:
            return True
        side = max(was.height, was.width)
        is_resized = any(
            abs(one - other) > RESIZED_SHARE * max(one, other)
            for one, other in ((region.height, was.height), (region.width, was.width))
        )
        off_rows = abs(region.top - was.top)
        off_columns = abs(region.left + region.width / 2 - was.left - was.width / 2)
        return is_resized and max(off_rows, off_columns) > MOVED_SHARE * side

    def to_view(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        region = self.region
        return {
            "region": None if region is None else asdict(region),
            "apical_frames": self.apical_frames,
            "pictures": [cells_to_text(each_HW) for each_HW in self.pictures_HW],
        }

    @classmethod
    def from_view(
        cls, region: dict[str, int] | None, apical_frames: int, pictures: tuple[str, ...] = ()
    ) -> Self:
        """Read what ``to_view`` gave.

        Raises:
            FrameError: the place is none.
            ValueError: the cells are not those of an image.
        """
        pictures_HW = tuple(cells_from(text, np.float16) for text in pictures)
        return cls(None if region is None else Region(**region), apical_frames, pictures_HW)
