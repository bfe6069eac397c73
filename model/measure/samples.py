"""The last seconds of a stream's measurements, in a block of memory of fixed size."""

import base64
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from model.measure.quality import AXIS_FLIPPED, FRAME_REASONS
from model.measure.reading import Reading

CAPACITY = 2048
"""Rows; at 120 frames a second 17 s."""

LATEST_ROWS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Measurements in order of time, one value per frame.

    Attributes:
        time_ms_T: rising.
        seq_T: numbers of the frames, less that of the stream's first.
        is_usable_T: 1 where the frame may be measured, else 0.
        volume_T: volume_index, NaN where not measured; so are the next four.
        area_T: area_px.
        length_T: length_index.
        volume_sd_T: volume_index_sd.
        index_mm_T: NaN too where pixels are not calibrated.
        reasons_T: bit ``i`` stands for ``FRAME_REASONS[i]``.
    """

    time_ms_T: NDArray[np.float64]
    seq_T: NDArray[np.float64]
    is_usable_T: NDArray[np.float64]
    volume_T: NDArray[np.float64]
    area_T: NDArray[np.float64]
    length_T: NDArray[np.float64]
    volume_sd_T: NDArray[np.float64]
    index_mm_T: NDArray[np.float64]
    reasons_T: NDArray[np.float64]

    def between(self, first_ms: float, last_ms: float) -> "Samples":
        """Cut out the frames from one time to another, both included."""
        start = int(np.searchsorted(self.time_ms_T, first_ms, side="left"))
        stop = int(np.searchsorted(self.time_ms_T, last_ms, side="right"))
        return Samples(*(getattr(self, each.name)[start:stop] for each in fields(self)))

    def usable(self) -> "Samples":
        """Leave out the frames that may not be measured."""
        keep = self.is_usable_T > 0
        return Samples(*(getattr(self, each.name)[keep] for each in fields(self)))

    def reason_shares(self) -> dict[str, float]:
        """Tell of each reason on which share of the frames it stood."""
        bits_TR = self.reasons_T.astype(np.int64)[:, None] >> np.arange(len(FRAME_REASONS)) & 1
        shares_R = bits_TR.sum(axis=0) / max(len(bits_TR), 1)
        return {
            name: float(share)
            for name, share in zip(FRAME_REASONS, shares_R, strict=True)
            if share > 0
        }


COLUMNS = len(fields(Samples))

REASON_BITS = {reason: 1 << place for place, reason in enumerate(FRAME_REASONS)}


class SampleStore:
    """Rows are appended at the end of a block; when it is full the kept ones move to its start."""

    def __init__(self, window_ms: float) -> None:
        self._window_ms = window_ms
        self._rows_TC = np.empty((CAPACITY, COLUMNS))
        self._start = 0
        self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def append(self, row: tuple[float, ...]) -> None:
        """Add a frame and forget those that the window has left."""
        if self._stop == CAPACITY:
            # At rates beyond CAPACITY per window the oldest half goes earlier.
            self._start = max(self._start, CAPACITY // 2)
            kept_TC = self._rows_TC[self._start : self._stop].copy()
            self._rows_TC[: len(kept_TC)] = kept_TC
            self._start, self._stop = 0, len(kept_TC)
        self._rows_TC[self._stop] = row
        self._stop += 1
        while row[0] - self._rows_TC[self._start, 0] > self._window_ms:
            self._start += 1

    def drop_last(self, count: int) -> None:
        """Forget the last rows."""
        self._stop = max(self._stop - count, self._start)

    def drop_after(self, seq: int) -> None:
        """Forget the rows of frames after one, by their numbers since the stream's first."""
        seqs_T = self._rows_TC[self._start : self._stop, 1]
        self._stop = self._start + int(np.searchsorted(seqs_T, seq, side="right"))

    def clear(self) -> None:
        """Forget all rows."""
        self._start = self._stop = 0

    def latest_times_ms(self) -> NDArray[np.float64]:
        """View the times of the last few rows."""
        return self._rows_TC[max(self._stop - LATEST_ROWS, self._start) : self._stop, 0]

    def latest_volumes(self) -> NDArray[np.float64]:
        """View the volumes of the last few rows, NaN where not measured."""
        return self._rows_TC[max(self._stop - LATEST_ROWS, self._start) : self._stop, 3]

    def samples(self) -> Samples:
        """View the rows in the window."""
        return Samples(*self._rows_TC[self._start : self._stop].T)

    def to_text(self) -> str:
        """Write the rows so that not a bit is lost."""
        rows_TC = np.ascontiguousarray(self._rows_TC[self._start : self._stop], "<f8")
        return base64.b64encode(rows_TC.tobytes()).decode("ascii")

    def fill_from_text(self, text: str) -> None:
        """Take the rows that ``to_text`` wrote.

        Raises:
            ValueError: not such a text.
        """
        rows_TC = np.frombuffer(base64.b64decode(text, validate=True), "<f8")
        rows_TC = rows_TC.reshape(-1, COLUMNS)[-CAPACITY:]
        self._rows_TC[: len(rows_TC)] = rows_TC
        self._start, self._stop = 0, len(rows_TC)


def sample_row(
    time_ms: float, seq: int, reading: Reading, is_usable: bool, *, is_flipped: bool = False
) -> tuple[float, ...]:
    """Lay out one frame's measurements in the order of Samples."""
    bits = sum(REASON_BITS.get(reason, 0) for reason in reading.quality.reasons)
    bits += REASON_BITS[AXIS_FLIPPED] * is_flipped
    lv, nan = reading.lv, float("nan")
    if lv is None:
        return (time_ms, seq, False, nan, nan, nan, nan, nan, bits)
    return (
        time_ms,
        seq,
        is_usable,
        lv.volume_index,
        lv.area_px,
        lv.length_index,
        lv.volume_index_sd,
        nan if lv.index_mm is None else lv.index_mm,
        bits,
    )
