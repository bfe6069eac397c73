"""Per-frame values as CSV, and masks as run lengths in the form of COCO.

Source:
    RFC 4180 (CSV); the COCO data format, whose masks are runs down the columns written in groups
    of five bits.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import STRUCTURES
from server.edits import Edit, last_edits
from server.export.objects import NOTICE
from server.export.overlay import Findings
from server.export.segmentation import Masks
from server.ingest.dataset import PRODUCT

COLUMNS = (
    "seq", "time_ms", "lv_area_px", "lv_area_cm2", "lv_length_cm", "lv_volume_ml",
    "lv_volume_index", "presence", "quality", "reasons", "event",
    "edit", "edited_by", "edited_at",
)  # fmt: skip
"""Of frames.csv; what is unknown is empty, reasons are parted by spaces.

The last three tell of the correction that a frame's outlines are from: its revision, who and when.
"""

_GROUP_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48


def write_table(path: Path, findings: Findings) -> None:
    """Write ``frames.csv``: one line a frame, COLUMNS at its head."""
    edits = last_edits(findings.edits)
    events: dict[int, list[str]] = {}
    for beat in findings.beats:
        events.setdefault(beat.ed_seq, []).append("ED")
        events.setdefault(beat.es_seq, []).append("ES")
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for index, frame in enumerate(findings.frames):
            lv, quality = frame.reading.lv, frame.reading.quality
            sizes = (
                (None,) * 5
                if lv is None
                else (lv.area_px, lv.area_cm2, lv.length_cm, lv.volume_ml, lv.volume_index)
            )
            table.writerow(
                [
                    frame.seq,
                    _short(None if frame.time_us is None else frame.time_us / 1000),
                    *map(_short, sizes),
                    _short(frame.reading.presence),
                    quality.state,
                    " ".join(quality.reasons),
                    " ".join(sorted(set(events.get(frame.seq, [])))),
                    *_edit(edits.get(index)),
                ]
            )


def _edit(edit: Edit | None) -> tuple[str, str, str]:
    return ("", "", "") if edit is None else (str(edit.revision), edit.who or "", edit.time)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def write_coco(path: Path, masks: Masks, findings: Findings) -> None:
    """Write ``masks.json``, annotation by annotation, with bounded memory.

    Args:
        path: where to write.
        masks: of every frame.
        findings: of the same clip, for the times.
    """
    rows, columns = masks.size
    head = {
        "info": {"description": f"{PRODUCT}: masks of one clip. {NOTICE}", "version": "1"},
        "categories": [
            {"id": number, "name": name, "supercategory": "heart"}
            for number, name in enumerate(STRUCTURES, start=1)
        ],
        "images": [
            {
                "id": index + 1, "width": columns, "height": rows, "frame_seq": frame.seq,
                "time_ms": None if frame.time_us is None else frame.time_us / 1000,
            }
            for index, frame in enumerate(findings.frames)
        ],
    }  # fmt: skip
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "annotations": [')
        for number, annotation in enumerate(_annotations(masks), start=1):
            file.write((",\n" if number > 1 else "\n") + json.dumps({"id": number, **annotation}))
        file.write("\n]}\n")


def _annotations(masks: Masks) -> Iterator[dict[str, Any]]:
    for index, labels_HW in enumerate(masks.maps()):
        for number, _ in enumerate(STRUCTURES, start=1):
            is_inside_HW = labels_HW == number
            if is_inside_HW.any():
                yield {
                    "image_id": index + 1,
                    "category_id": number,
                    "segmentation": {
                        "size": list(masks.size),
                        "counts": coco_string(coco_counts(is_inside_HW)),
                    },
                    "area": int(np.count_nonzero(is_inside_HW)),
                    "bbox": _box(is_inside_HW),
                    "iscrowd": 1,
                }


def _box(is_inside_HW: NDArray[np.bool_]) -> list[int]:
    """Left, top, width and height."""
    rows, columns = (np.flatnonzero(is_inside_HW.any(axis)) for axis in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def coco_counts(is_inside_HW: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs outside and inside in turn, outside first, down one column after another."""
    flat = is_inside_HW.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    counts: list[int] = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return counts


def coco_string(counts: list[int]) -> str:
    """Write run lengths as COCO's text: from the third on as differences to two runs before."""
    letters = []
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        is_done = False
        while not is_done:
            group = left & (_MORE - 1)
            left >>= _GROUP_BITS
            is_done = left == (-1 if group & _SIGN else 0)
            letters.append(chr(_FIRST + group + (0 if is_done else _MORE)))
    return "".join(letters)
