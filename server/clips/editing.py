"""One correction of one frame: all that follows from it, and its entry in the trail."""

from dataclasses import dataclass
from datetime import UTC, datetime

from model import Mask, Reading, measure_frame
from server.clips.making import Source
from server.edits import (
    MOST_EDITS,
    Corrections,
    Edit,
    EditSide,
    Outlines,
    check_contours,
    edits_of,
)
from server.errors import EditError, StaleError
from server.study import Study


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to be changed.

    Attributes:
        frame: place in the clip, from 0.
        contours: outlines to draw; None brings the network's own back.
        revisions: of the result, any of which the change is meant for; None for whichever it is.
        who: name of the API key, None where the server has none.
    """

    frame: int
    contours: Outlines | None
    revisions: frozenset[int] | None
    who: str | None


def edited(source: Source, wanted: Wanted) -> Study:
    """Measure a clip anew with one more correction.

    Raises:
        StaleError: the result was corrected meanwhile.
        EditError: the frame is not there, or the outlines are none.
        MeasurementError: an outline cannot be measured.
        NotAvailableError: the weights that the clip was measured with are no longer here.
    """
    document, edits = source.document, edits_of(source.document)
    contours = _check(wanted, document["clip"], document["revision"], len(edits))
    earlier, later = Corrections(edits), Corrections(edits)
    later.add(wanted.frame, contours)
    touched = earlier.names(wanted.frame) if contours is None else list(contours)
    seen: list[Mask] = []

    def correct(frame: int, mask: Mask) -> Mask:
        if frame == wanted.frame:
            seen.append(earlier.apply(frame, mask))
        return later.apply(frame, mask)

    study = source.analyse_with(correct)
    spacing_mm = document["clip"]["spacing_mm"]
    before = measure_frame(seen[0], spacing_mm and (spacing_mm[0], spacing_mm[1]))
    after = study.findings.frames[wanted.frame].reading
    edit = Edit(
        revision=document["revision"] + 1,
        frame=wanted.frame,
        who=wanted.who,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        before=_side(before, _outlines(before, touched), document["ef"]["percent"]),
        after=_side(after, contours, study.document["ef"]["percent"]),
    )
    return study.with_edits([*edits, edit])


def _check(
    wanted: Wanted, clip: dict[str, object], revision: int, edit_count: int
) -> Outlines | None:
    if wanted.revisions is not None and revision not in wanted.revisions:
        raise StaleError(
            f"this clip was corrected meanwhile and is at revision {revision}: look at it again"
        )
    if edit_count >= MOST_EDITS:
        raise EditError(f"a clip takes {MOST_EDITS} corrections: upload it again")
    frames, size = clip["frames"], clip["size"]
    assert isinstance(frames, int)
    assert isinstance(size, list)
    if not 0 <= wanted.frame < frames:
        raise EditError(f"there is no frame {wanted.frame}: the clip has {frames}, counted from 0")
    if wanted.contours is None:
        return None
    return check_contours(wanted.contours, (size[0], size[1]))


def _outlines(reading: Reading, names: list[str]) -> Outlines:
    return {
        name: [line_P2[:-1].astype(float).round(1).tolist() for line_P2 in reading.contours[name]]
        for name in names
    }


def _side(reading: Reading, contours: Outlines | None, ef_percent: float | None) -> EditSide:
    area_px = None if reading.lv is None else round(reading.lv.area_px, 1)
    return EditSide(contours, area_px, ef_percent)
